from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from betavi.diagnostics import CollapseReport, DimensionArrays, causes_of, judge_dimensions
from tests.contracts.cause import evidence, spectrum

N_CELLS, N_SPLITS = 400, 4


def arrays(signal, memorised, missed, seed=0):
    """Dimensions with a signal, with noise that each half of the features says of its own."""
    rng = np.random.default_rng(seed)
    signal, memorised = np.asarray(signal), np.asarray(memorised)
    z = rng.normal(size=(N_CELLS, len(signal))) * np.sqrt(signal)
    own = rng.normal(size=(2, N_CELLS, len(signal))) * np.sqrt(memorised / 2)
    loc = z + own.sum(axis=0)
    halves = (z / 2 + own)[None] + 0.1 * rng.normal(size=(N_SPLITS, 2, N_CELLS, len(signal)))
    losses = np.asarray(missed) + rng.normal(size=loc.shape)
    return DimensionArrays(loc, np.full(loc.shape, 0.8), np.zeros(len(signal)), losses, halves)


def test_signal_noise_and_nothing_are_told_apart():
    found = judge_dimensions(arrays([1, 0, 0, 1], [0.2, 1, 0.01, 0.2], [2, 2, 0, 0]))
    # what both halves say but the decoder does not read is no use either
    assert found["status"].tolist() == ["used", "noise", "inactive", "noise"]
    assert found["signal"].iloc[0] == pytest.approx(np.log1p(1 / 0.64) / 2, rel=0.2)
    # Burda's rule would have called all but the third active, and the third as well
    assert (found["mean_variance"] > 0.005).all()


@pytest.mark.slow
def test_data_without_a_signal_seldom_look_as_if_they_had_one():
    false = 0
    for seed in range(50):
        found = judge_dimensions(arrays(np.zeros(20), np.ones(20), np.ones(20), seed))
        false += (found["status"] == "used").sum()
    # three standard errors are passed by chance once in 740
    assert false <= 6


def test_a_dimension_of_the_total_count_is_told_apart():
    """Both halves agree about the depth of a cell, also if genes have nothing else in common."""
    found = arrays([1.0, 1.0, 0.0], [0.2, 0.2, 0.2], [2, 2, 2])
    depth = found.loc[:, :1] + 0.1 * np.random.default_rng(3).normal(size=(N_CELLS, 1))
    without = judge_dimensions(found)
    knows = judge_dimensions(replace(found, log_totals=np.exp(depth / 2)))
    assert without["status"].tolist() == ["used", "used", "noise"]
    assert knows["status"].tolist() == ["depth", "used", "noise"]
    # the other dimensions keep their signal
    np.testing.assert_allclose(knows["signal"][1:], without["signal"][1:], atol=0.05)


@pytest.mark.parametrize(("n_cells", "n_modalities"), [(20, 1), (20, 3), (60, 3)])
def test_the_effect_of_totals_is_not_overfitted_in_few_cells(n_cells, n_modalities):
    """Totals that say nothing about the cells: signal stays signal, and noise noise."""
    found = {"signal": [], "noise": []}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        z, totals = rng.normal(size=(n_cells, 1)), rng.normal(8, 0.5, (n_cells, n_modalities))
        own = rng.normal(size=(N_SPLITS, 2, n_cells, 1))
        losses = 1 + 0.1 * rng.normal(size=(n_cells, 1))
        for what, halves in (("signal", 0.5 * z + 0.15 * own), ("noise", own)):
            given = DimensionArrays(z, np.full_like(z, 0.3), np.ones(1), losses, halves, totals)
            found[what] += judge_dimensions(given)["status"].tolist()
    assert "depth" not in found["signal"]
    assert "noise" not in found["signal"]
    assert found["signal"].count("used") >= 70
    assert found["noise"].count("used") <= 2


def test_equal_totals_change_nothing():
    found = arrays([1.0, 0.0], [0.2, 0.2], [2, 2])
    same = judge_dimensions(replace(found, log_totals=np.full((N_CELLS, 2), 7.0)))
    pd.testing.assert_frame_equal(same, judge_dimensions(found))


def report(*status, causes=()):
    dimensions = pd.DataFrame({"information": 0.5, "sensitivity": 1.0, "status": list(status)})
    return CollapseReport(
        dimensions, list(causes), 2.0, spectrum(5.0, 0.5), 3.0, 90.0, 2.5, 0.5, 0.1,
        {"X": 10.0}, 1.0, pd.DataFrame(), 100, True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "verdict", "inactive"),
    [
        (["used", "used"], "healthy", []),
        (["used", "noise"], "partial", []),
        (["used", "inactive"], "partial", [1]),
        (["used", "unclear"], "healthy", []),
        (["used", "depth"], "partial", []),
        (["depth", "inactive"], "collapsed", [1]),
        (["inactive", "inactive"], "collapsed", [0, 1]),
        (["noise", "noise"], "collapsed", []),
    ],
)
def test_verdicts(status, verdict, inactive):
    found = report(*status)
    assert (found.verdict, found.inactive_dimensions) == (verdict, inactive)
    assert found.active_dimensions == status.count("used")


def test_what_too_few_cells_cannot_say_is_unclear():
    """A signal that the decoder misses by five nats, give or take fifty: few cells do not show it."""
    found = arrays([1.0], [0.2], [5.0])
    noisy = found.losses + 50 * np.random.default_rng(1).normal(size=found.losses.shape)
    few = DimensionArrays(found.loc, found.scale, found.rates, noisy, found.halves)
    assert judge_dimensions(few)["status"].tolist() == ["unclear"]


def test_a_dimension_of_two_clusters_says_which_it_is():
    loc = np.repeat([-1.0, 1.0], N_CELLS // 2)[:, None]
    given = arrays([1.0], [0.0], [1.0])
    found = judge_dimensions(
        DimensionArrays(loc, np.full(loc.shape, 0.1), np.zeros(1), given.losses, given.halves)
    )
    assert found["information"].iloc[0] == pytest.approx(np.log(2), abs=0.02)


def test_what_is_saturated_says_so():
    assert not report("used").is_saturated
    full = replace(report("used"), mutual_information=4.5)
    assert full.is_saturated
    assert full.summary()["marginal KL, nats, at most"] == -1.5


def test_the_numbers_of_the_whole_space():
    found = report("used", "inactive")
    assert found.marginal_kl == 0.5
    assert found.explained_share == 0.1
    assert found.summary()["directions active in theory"] == 1


def test_a_report_reads_well_and_shows_in_a_notebook():
    causes = causes_of(evidence())
    found = report("used", "inactive", causes=causes)
    assert str(found).startswith("partial: 1 of 2 dimensions are used. Inactive: 1.\n- too_many")
    html = found._repr_html_()
    assert "<b>too_many_dimensions</b>" in html
    assert "&#x27;" not in html.split("<table")[1]
    assert found.remedies == [causes[0].remedy]
