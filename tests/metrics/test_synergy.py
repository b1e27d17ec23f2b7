"""Excess of pairs beside numbers by hand, p-values without interactions, and messages."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from benchmarks.synergy import EVEN, KEYS, by_value, is_null, read_fitness, simulate_screen
from betavi.metrics import synergy
from betavi.metrics._noise import inverse_trigamma, moderate


def repeated(means, n=3, sd=0.0, seed=0):
    """Measure each perturbation some times, with replicates."""
    names = np.repeat(list(means), n)
    noise = sd * np.random.default_rng(seed).normal(size=len(names))
    # equal measurements would have no noise at all
    values = np.repeat(list(means.values()), n) + np.tile(np.linspace(-1e-3, 1e-3, n), len(means))
    replicate = np.tile([f"r{i}" for i in range(n)], len(means))
    return pd.DataFrame({"perturbation": names, "value": values + noise, "replicate": replicate})


QUIET = partial(np.full_like, fill_value=0.02)
BY_HAND = {"control": 1.0, "A": 0.8, "B": 0.5, "A+B": 0.3, "C": 0.9, "C+A": 0.75}


@pytest.mark.parametrize("replicate_key", [None, "replicate"])
def test_excess_on_both_scales_is_that_by_hand(replicate_key):
    table = repeated(BY_HAND)
    # matched replicates multiply deviations of 0.001
    exact = {"abs": 1e-5}
    found = synergy(table, replicate_key=replicate_key).set_index("perturbation")
    assert list(found.index) == ["A+B", "A+C"]
    assert found["observed"].tolist() == pytest.approx([0.3, 0.75], **exact)
    assert found["expected"].tolist() == pytest.approx([0.4, 0.72], **exact)
    assert found["excess"].tolist() == pytest.approx([-0.1, 0.03], **exact)
    assert found["hsa_excess"].tolist() == pytest.approx([-0.2, -0.05], **exact)
    assert found["n_measurements"].tolist() == found["n_replicates"].tolist() == [3, 3]
    log = synergy(table, scale="log", replicate_key=replicate_key)
    # sums of singles, minus the control
    assert log["excess"].tolist() == pytest.approx([0.3 - (0.8 + 0.5 - 1), 0.75 - 0.7], **exact)
    assert log["hsa_excess"].tolist() == pytest.approx([-0.2, -0.05], **exact)


def test_without_moderation_the_test_is_that_of_scipy():
    """One pair in matched replicates, whose variance is not shared."""
    table = simulate_screen(np.random.default_rng(0), n_reps=4, n_pairs=1)
    means = table.groupby(["perturbation", "replicate"])["value"].mean().unstack(0)  # noqa: PD010
    pair = next(name for name in means if "+" in name)
    first, second = pair.split("+")
    excess = means[pair] - means[first] - means[second] + means["control"]
    found = synergy(table, scale="log", replicate_key="replicate").iloc[0]
    assert found["p_value"] == pytest.approx(stats.ttest_1samp(excess, 0).pvalue)
    ends = stats.t.interval(0.9, 3, excess.mean(), stats.sem(excess))
    # the bootstrap resamples four residuals
    assert (found["excess_lower"], found["excess_upper"]) == pytest.approx(ends, rel=0.3)


def test_order_names_and_rows_do_not_matter():
    table = repeated(BY_HAND, sd=0.02)
    swapped = table.assign(
        perturbation=table["perturbation"].replace({"A+B": " B + A", "A": "control+A"})
    )
    expected = synergy(table)
    pd.testing.assert_frame_equal(synergy(swapped), expected)
    shuffled = synergy(table.sample(frac=1, random_state=0)).sort_values("perturbation")
    columns = ["perturbation", "excess", "p_value", "fdr"]
    pd.testing.assert_frame_equal(shuffled[columns].reset_index(drop=True), expected[columns])
    other = table.assign(perturbation=table["perturbation"].str.replace("+", " & "))
    named = synergy(other, separator="&").drop(columns="perturbation")
    pd.testing.assert_frame_equal(named, expected.drop(columns="perturbation"))


@pytest.mark.parametrize("replicate_key", [None, "replicate"])
def test_units_and_offsets_do_not_matter(replicate_key):
    table = simulate_screen(np.random.default_rng(0))
    options = {"scale": "log", "replicate_key": replicate_key}
    expected = synergy(table, **options)
    other = synergy(table.assign(value=3 * table["value"] + 2), **options)
    np.testing.assert_allclose(other["excess"], 3 * expected["excess"], atol=1e-12)
    np.testing.assert_allclose(other["excess_upper"], 3 * expected["excess_upper"], atol=1e-9)
    np.testing.assert_allclose(other["p_value"], expected["p_value"], rtol=1e-6)


def test_matched_replicates_cancel_batches():
    table = simulate_screen(np.random.default_rng(0))
    shift = table["replicate"].map({"0": 0.0, "1": 1.0, "2": -2.0})
    options = {"scale": "log", "replicate_key": "replicate"}
    moved = table.assign(value=table["value"] + shift)
    expected, found = (
        synergy(some, **options).drop(columns=["observed", "expected"]) for some in (table, moved)
    )
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("n_reps", [2, 3])
@pytest.mark.parametrize("replicate_key", [None, "replicate"])
@pytest.mark.parametrize(
    ("scale", "noise", "tails"),
    [
        ("log", EVEN, np.inf),
        ("log", EVEN, 3.0),
        ("log", by_value, np.inf),
        ("viability", by_value, np.inf),
    ],
)
def test_p_values_without_interactions_are_uniform(scale, noise, tails, replicate_key, n_reps):
    parts = []
    for seed in range(12):
        table = simulate_screen(np.random.default_rng(seed), n_reps, scale, noise, tails)
        parts.append(synergy(table, scale=scale, replicate_key=replicate_key, n_bootstrap=100))
    found = pd.concat(parts)
    # 720 pairs; pairs of one screen share singles
    assert stats.kstest(found["p_value"], "uniform").statistic < 0.12
    assert (found["p_value"] < 0.05).mean() < 0.10
    assert (found["p_value"] < 0.01).mean() < 0.035
    covered = (found["excess_lower"] <= 0) & (found["excess_upper"] >= 0)
    assert covered.mean() > 0.82


def test_power_grows_with_the_excess_and_with_replicates():
    def share(excess, n_reps):
        parts = [
            synergy(
                simulate_screen(np.random.default_rng(seed), n_reps, excess=excess), scale="log"
            )
            for seed in range(3)
        ]
        return (pd.concat(parts)["fdr"] < 0.1).mean()

    none, some, more, most = share(0.0, 3), share(-0.15, 3), share(-0.3, 3), share(-0.15, 12)
    assert none < 0.05 < some < more
    assert some < most
    found = synergy(simulate_screen(np.random.default_rng(0), excess=-0.3), scale="log")
    assert (found["excess"] < 0).mean() > 0.95


def test_contexts_are_judged_apart():
    one, two = repeated(BY_HAND), repeated(BY_HAND | {"A+B": 0.6})
    table = pd.concat([one.assign(cell_line="x"), two.assign(cell_line="y")], ignore_index=True)
    found = synergy(table, context_key="cell_line").set_index(["context", "perturbation"])
    assert found.loc[("x", "A+B"), "excess"] == pytest.approx(-0.1)
    assert found.loc[("y", "A+B"), "excess"] == pytest.approx(0.2)
    assert len(found) == 4
    with pytest.raises(ValueError, match="not measured in context 'y'"):
        synergy(table[(table["cell_line"] == "x") | (table["perturbation"] != "control")],
                context_key="cell_line")  # fmt: skip


def test_guides_take_the_singles_of_the_same_guides():
    means = {("control", "n"): 0.0, ("A", "a1"): -1.0, ("A", "a2"): -0.1, ("B", "b1"): -0.5}
    pairs = {("A+B", "a1+b1"): -1.7, ("B+A", "b1+a2"): -0.9}
    rows = [(*key, value) for key, value in (means | pairs).items()]
    table = pd.DataFrame(rows, columns=["perturbation", "guide", "value"])
    found = synergy(table, scale="log", replicate_key="guide")
    assert found["excess"].tolist() == pytest.approx([(-0.2 - 0.3) / 2])
    assert found["n_replicates"].tolist() == [2]
    with pytest.raises(ValueError, match="'B' is not measured in replicate 'b1'"):
        synergy(table[table["guide"] != "b1"], scale="log", replicate_key="guide")
    with pytest.raises(ValueError, match="has 3 parts"):
        synergy(table.replace("a1+b1", "a1+b1+c1"), scale="log", replicate_key="guide")


def guides(rng, n_genes=24, shared=0.1):
    """Simulate two guides a gene, with noise of each guide in each pair of genes."""
    rows = [("control", "n", 0.0)] + [
        (f"g{i}", f"g{i}.{k}", 0.0) for i in range(n_genes) for k in (1, 2)
    ]
    for i, j in zip(*np.triu_indices(n_genes, 1), strict=True):
        noise = shared * rng.normal(size=(2, 2))
        rows += [
            (f"g{i}+g{j}", f"g{i}.{k}+g{j}.{m}", noise[0, k - 1] + noise[1, m - 1] + 0.05 * e)
            for k, m, e in zip((1, 1, 2, 2), (1, 2, 1, 2), rng.normal(size=4), strict=True)
        ]
    return pd.DataFrame(rows, columns=["perturbation", "guide", "value"])


def test_the_noise_that_guide_pairs_share_is_counted():
    table = guides(np.random.default_rng(0))
    found = synergy(table, scale="log", replicate_key="guide", n_bootstrap=300)
    assert stats.kstest(found["p_value"], "uniform").statistic < 0.12
    covered = (found["excess_lower"] <= 0) & (found["excess_upper"] >= 0)
    assert 0.8 < covered.mean() < 0.97


@pytest.mark.parametrize("scale", ["log", "viability"])
def test_a_fitted_expectation_removes_a_common_bend(scale):
    table = simulate_screen(np.random.default_rng(0), scale=scale, noise=QUIET, n_pairs=66)
    is_pair = table["perturbation"].str.contains("+", regex=False)
    # the larger the effects, the larger the excess; one pair has an excess of its own
    bend = 0.5 * (table["value"] - table["value"].max()) ** 2
    table["value"] += bend.where(is_pair, 0)
    planted = table.loc[is_pair, "perturbation"].iloc[0]
    table.loc[table["perturbation"] == planted, "value"] += 0.4
    options = {"scale": scale, "n_bootstrap": 100}
    bliss, fitted = (
        synergy(table, expectation=word, **options).set_index("perturbation")
        for word in ("bliss", "fitted")
    )
    assert bliss["excess"].mean() > 5 * abs(fitted["excess"].mean())
    top = fitted.loc[fitted["excess"].idxmax()]
    assert {top["first"], top["second"]} == set(planted.split("+"))
    assert top["fdr"] < 0.1
    few = simulate_screen(np.random.default_rng(0), scale=scale, noise=QUIET, n_pairs=40)
    with pytest.raises(ValueError, match=r"needs 10 partners .* but there are 6\.7"):
        synergy(few, expectation="fitted", **options)


def test_moderation_recovers_the_variances_that_it_assumes():
    """Variances of a scaled inverse chi-squared distribution with 8 degrees of freedom."""
    rng = np.random.default_rng(0)
    variance = 8 * 2.0 / rng.chisquare(8, 4000)
    values = np.sqrt(variance)[:, None] * rng.normal(size=(4000, 3))
    noise = moderate(values.ravel(), np.repeat(np.arange(4000), 3), np.zeros(4000))
    assert noise.df[0] - 2 == pytest.approx(8, rel=0.25)
    assert noise.prior[0] == pytest.approx(2, rel=0.1)
    assert np.corrcoef(noise.variance, variance)[0, 1] > 0.4
    assert special.polygamma(1, inverse_trigamma(0.3)) == pytest.approx(0.3)


def test_a_pair_that_was_measured_once_has_the_noise_of_the_others():
    table = simulate_screen(np.random.default_rng(0))
    name = table["perturbation"].iloc[-1]
    once = table[(table["perturbation"] != name) | (table["replicate"] == "0")]
    found = synergy(once, scale="log").set_index("perturbation")
    row = found[found["n_measurements"] == 1]
    assert len(row) == 1
    assert row["p_value"].between(0, 1).all()
    with pytest.raises(ValueError, match="Noise cannot be estimated"):
        synergy(table[table["replicate"] == "0"].drop_duplicates("perturbation"), scale="log")


def test_without_pairs_the_result_is_empty():
    table = repeated({"control": 1.0, "A": 0.8})
    found = synergy(table)
    assert len(found) == 0
    assert list(found.columns) == list(synergy(repeated(BY_HAND)).columns)


def test_results_are_reproducible_and_the_table_is_unchanged():
    table = repeated(BY_HAND, sd=0.02)
    before = table.copy()
    pd.testing.assert_frame_equal(synergy(table, seed=1), synergy(table, seed=1))
    pd.testing.assert_frame_equal(table, before)
    other = synergy(table, seed=2)
    assert (other["excess_lower"] != synergy(table, seed=1)["excess_lower"]).all()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t[t["perturbation"] != "B"], {}, r"'B' is not measured.*'A\+B'"),
        (lambda t: t.assign(value=t["value"].where(t.index != 4)), {}, r"nan in row 4 \('A'\)"),
        (lambda t: t.replace("control", "ctrl"), {}, "'control' is not measured.*"),
        (lambda t: t.replace("A+B", "A|B").replace("C+A", "C|A"), {}, r"Pass separator='\|'"),
        (lambda t: t.replace("A+B", "A+B+C"), {}, "Only pairs are supported"),
        (lambda t: t.replace("A+B", "A+"), {}, "has an empty part"),
        (lambda t: t.replace("A+B", "A+A"), {}, "with itself"),
        (lambda t: t.assign(value=100 * t["value"]), {}, "Divide percentages by 100"),
        (lambda t: t.assign(value=t["value"] - 0.4), {}, "Clip values at 0"),
        (lambda t: t.replace("A", None), {}, "is missing in 3 rows, e.g. in row 3"),
        (lambda t: t, {"scale": "linear"}, "`scale` must be one of 'viability', 'log'"),
        (lambda t: t, {"expectation": "loewe"}, "`expectation` must be one of"),
        (lambda t: t.iloc[:0], {}, "'control' is not measured"),
        (lambda t: t.replace("r1", "r9"), {"level": "90"}, "`level` must be between 0 and 1"),
        (lambda t: t[(t["perturbation"] != "B") | (t["replicate"] != "r1")],
         {"replicate_key": "replicate"}, "'B' is not measured in replicate 'r1'.*replicate_key=None"),
        (lambda t: t, {"level": 90}, "`level` must be between 0 and 1, not 90"),
        (lambda t: t, {"n_bootstrap": 0}, "`n_bootstrap`"),
        (lambda t: t, {"separator": ""}, "`separator` must be a text"),
        (lambda t: t[(t["perturbation"] != "control") | (t["replicate"] != "r1")],
         {"replicate_key": "replicate"}, "Replicate 'r1' has pairs, but no control"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, options, message):
    with pytest.raises(ValueError, match=message):
        synergy(change(repeated(BY_HAND)), **options)


def test_unknown_columns_and_objects_are_named():
    table = repeated(BY_HAND)
    with pytest.raises(
        KeyError, match=r"`value_key='values'` is not a column\. Did you mean 'value'"
    ):
        synergy(table, value_key="values")
    with pytest.raises(KeyError, match="`context_key='line'`"):
        synergy(table, context_key="line")
    with pytest.raises(TypeError, match="`table` is a ndarray"):
        synergy(table.to_numpy())
    with pytest.raises(ValueError, match="Did you mean 'ctrl'"):
        synergy(table.replace("control", "ctrl"), control="ctr")


@pytest.mark.slow
def test_gene_pairs_called_in_one_replicate_are_confirmed_by_the_other():
    folder = os.environ.get("BETAVI_DATA_DIR")
    if not folder or not (Path(folder) / "genetic_interactions").exists():
        pytest.skip("BETAVI_DATA_DIR is not set or has no genetic_interactions")
    options = {**KEYS, "expectation": "fitted", "n_bootstrap": 50}
    one, two = (
        synergy(read_fitness(Path(folder), replicate), **options).set_index("perturbation")
        for replicate in (1, 2)
    )
    called = (one["fdr"] < 0.1) & ~is_null(one)
    same = np.sign(one["excess"]) == np.sign(two["excess"].reindex(one.index))
    assert called.sum() > 50
    assert same[called].mean() >= 0.9
    assert (one["p_value"][is_null(one)] < 0.05).mean() < 0.08
    shuffled = synergy(read_fitness(Path(folder), 1, seed=0), **options)
    assert stats.kstest(shuffled["p_value"], "uniform").statistic < 0.08
