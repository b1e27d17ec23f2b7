"""Pictures of perturbation effects show the values of their tables."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import LineCollection

from betavi import pl
from betavi.pl.interactions import DIVERGING, MINUS

mpl.use("Agg")
GENES = ["g0", "g1", "g2", "g3"]


def prediction(lfc, names=("A",), width=0.2):
    lfc = np.atleast_2d(np.asarray(lfc, dtype=float))
    layers = {"lfc": lfc, "lfc_lower": lfc - width, "lfc_upper": lfc + width}
    obs = pd.DataFrame({"perturbation": [name.split(" in ")[0] for name in names]}, list(names))
    return AnnData(np.ones_like(lfc), obs=obs, var=pd.DataFrame(index=GENES), layers=layers)


def measurement(lfc, obs, error=0.0):
    lfc = np.atleast_2d(np.asarray(lfc, dtype=float))
    layers = {"lfc": lfc, "lfc_error": np.full_like(lfc, error)}
    return AnnData(np.ones_like(lfc), obs=obs, var=pd.DataFrame(index=GENES), layers=layers)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_genes_outside_their_interval_are_told_apart_by_marker():
    ax = pl.predicted_change(prediction([0, 1, 2, -1]), [0.1, 1.1, 0.5, -1.1], n_labelled=2)
    assert labels(ax) == ["genes that agree within the intervals: 3", "genes that differ: 1"]
    marked = [line for line in ax.lines if line.get_marker() in ("o", "s")]
    assert {line.get_marker() for line in marked} == {"o", "s"}
    assert marked[1].get_xydata().tolist() == [[0.5, 2]]
    assert {text.get_text() for text in ax.texts} == {"g2", "g1"}
    intervals = [part for part in ax.collections if isinstance(part, LineCollection)]
    assert sum(len(part.get_segments()) for part in intervals) == 4


def test_noise_of_measured_values_counts_and_noisy_genes_are_hidden():
    obs = pd.DataFrame(index=["A"])
    measured = measurement([0.1, 1.1, 0.5, -1.1], obs, error=1.0)
    ax = pl.predicted_change(prediction([0, 1, 2, -1]), measured, max_error=2)
    assert labels(ax)[1] == "genes that differ: 0"
    measured.layers["lfc_error"][0, 3] = 3
    ax = pl.predicted_change(prediction([0, 1, 2, -1]), measured, max_error=2)
    assert labels(ax)[2] == "not shown, with few counts: 1"
    with pytest.raises(ValueError, match=r"at most `max_error`, 0.5"):
        pl.predicted_change(prediction([0, 1, 2, -1]), measured)


def test_values_are_matched_by_gene_and_condition():
    predicted = prediction([[0, 1, 2, -1]] * 2, ["A in T", "A in B"])
    observed = pd.Series({"g3": -1.0, "g0": 0.0})
    ax = pl.predicted_change(predicted, observed, condition="A in B", n_labelled=9)
    assert ax.get_title() == "A in B"
    assert {text.get_text() for text in ax.texts} == {"g0", "g3"}
    with pytest.raises(ValueError, match=r"has 2 rows. Choose one with `condition`. .*'A in T'"):
        pl.predicted_change(predicted, observed)
    with pytest.raises(KeyError, match=r"no row 'A in C'. Did you mean 'A in"):
        pl.predicted_change(predicted, observed, condition="A in C")
    measured = measurement([0] * 4, pd.DataFrame(index=["A"]))
    with pytest.raises(KeyError, match=r"`observed` has no row 'A in B'"):
        pl.predicted_change(predicted, measured, condition="A in B")


def test_other_kinds_of_results_are_named():
    with pytest.raises(TypeError, match=r"`predicted` is of type str. .* model.predict\(\)"):
        pl.predicted_change("A", [0])
    with pytest.raises(TypeError, match=r"without `cells`"):
        pl.predicted_change(AnnData(np.ones((1, 4))), [0] * 4)
    with pytest.raises(ValueError, match="3 values for 4 genes"):
        pl.predicted_change(prediction([0] * 4), [0] * 3)
    with pytest.raises(TypeError, match=r"no layer 'lfc'. Pass the result of betavi.metrics"):
        pl.predicted_change(prediction([0] * 4), AnnData(np.ones((1, 4))))
    with pytest.raises(TypeError, match="Pass a dictionary"):
        pl.dose_curves(prediction([0] * 4))
    with pytest.raises(TypeError, match=r"model.interactions\(\)"):
        pl.interactions("A")


@pytest.fixture
def table():
    rows = [(p, g) for p in ("A+B", "A+C") for g in GENES]
    found = pd.DataFrame(rows, columns=["pair", "gene"])
    found["shrunken"] = [0.8, 0.1, -0.4, 0.0, 0.1, -0.6, 0.0, 0.0]
    found["fdr"] = [0.01, 0.9, 0.05, 1.0, 0.9, 0.02, 1.0, 1.0]
    return found


def test_interactions_are_centred_on_zero_and_signs_are_written(table):
    ax = pl.interactions((table, None), n_genes=3)
    genes = [text.get_text() for text in ax.get_yticklabels()]
    assert genes == ["g0", "g2", "g1"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["A+B", "A+C"]
    image = ax.images[0]
    assert image.get_array().tolist() == [[0.8, 0.1], [-0.4, 0.0], [0.1, -0.6]]
    assert image.norm(0) == 0.5
    assert [text.get_text() for text in ax.texts] == ["+", MINUS, MINUS]
    assert len(pl.interactions(table, fdr=0.03).texts) == 2
    assert min(DIVERGING(0.5)[:3]) > 0.99


def test_chosen_genes_keep_their_order_and_unknown_ones_are_named(table):
    ax = pl.interactions(table, genes=["g3", "g0"])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["g3", "g0"]
    with pytest.raises(KeyError, match=r"no gene 'g9'. Did you mean 'g"):
        pl.interactions(table, genes=["g9"])
    with pytest.raises(KeyError, match=r"no column 'fdr'"):
        pl.interactions(table.drop(columns="fdr"))


@pytest.fixture
def curves():
    return {
        10: prediction([2, -2, 0.1, 0]), 0.1: prediction([0, 0, 0.1, 0]),
        1: prediction([1, -1, 0.1, 0]),
    }  # fmt: skip


def test_curves_have_bands_labels_points_and_the_half_effective_dose(curves):
    obs = pd.DataFrame({"perturbation": ["A", "A", "B"], "dose": [1.0, 10, 10]}, list("xyz"))
    observed = measurement([[1.2] * 4, [2.2] * 4, [9] * 4], obs, 0.1)
    response = pd.DataFrame({"ec50": [1.0], "lower": [0.5], "upper": [40.0]}, index=["A"])
    ax = pl.dose_curves(curves, observed=observed, response=response, n_genes=2)
    assert ax.get_xscale() == "log"
    assert {text.get_text() for text in ax.texts} == {"g0", "g1"}
    assert ax.lines[1].get_xydata().tolist() == [[0.1, 0], [1, 1], [10, 2]]
    assert set(labels(ax)) == {"predicted", "interval", "EC50 1 (0.5 to 40)", "measured"}
    # an interval beyond the doses does not widen the axis
    assert ax.get_xlim()[1] < 20
    assert ax.get_ylim()[1] < 5


def test_wrong_arguments_of_curves_are_named(curves):
    with pytest.raises(KeyError, match=r"no gene 'g9'. Did you mean 'g"):
        pl.dose_curves(curves, genes=["g9"])
    with pytest.raises(ValueError, match=r"has 1 dose. Predict at two doses"):
        pl.dose_curves({1: curves[1]})
    obs = pd.DataFrame({"perturbation": ["B"]}, index=["B"])
    with pytest.raises(KeyError, match=r"no doses. Pass `dose_key`"):
        pl.dose_curves(curves, observed=measurement([0] * 4, obs))
    with pytest.raises(KeyError, match="no row of 'A'"):
        pl.dose_curves(curves, observed=measurement([0] * 4, obs.assign(dose=1)))
    response = pd.DataFrame({"ec50": 1.0, "lower": 0.5, "upper": 2.0}, index=["AB"])
    with pytest.raises(KeyError, match=r"no row 'A'. Did you mean 'AB'"):
        pl.dose_curves(curves, response=response)


def test_a_picture_is_saved_into_the_given_axes(table, tmp_path):
    _, ax = mpl.pyplot.subplots()
    assert pl.interactions(table, ax=ax, save=tmp_path / "x.png") is ax
    assert (tmp_path / "x.png").exists()
