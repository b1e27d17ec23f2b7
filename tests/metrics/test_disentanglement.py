"""Metrics of disentanglement agree with slow definitions and order known latent spaces."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.preprocessing import KBinsDiscretizer

from betavi.diagnostics import axis_scores
from betavi.metrics import _spaces, disentanglement

FAST = {"n_permutations": 0, "n_bootstrap": 0}
ROTATION = np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0]


def labelled(n_cells=400, n_labels=4, n_dimensions=4, noise=0.3, seed=0):
    """Return a space with one dimension per label, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_labels, size=n_cells)
    z = noise * rng.normal(size=(n_cells, n_dimensions))
    z[:, :n_labels] += 2 * np.eye(n_labels)[labels]
    return z, np.array([f"type {number}" for number in labels])


def random_space(n_cells=300, n_dimensions=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(list("abcd"), n_cells, p=[0.6, 0.25, 0.1, 0.05])
    # with ties and a skewed dimension
    z = rng.normal(size=(n_cells, n_dimensions)) + (labels == "b")[:, None]
    z[:, 0] = z[:, 0].round(1)
    z[:, 1] = np.exp(z[:, 1])
    return z, labels


def scores_of(z, labels, score="information", **options):
    return disentanglement(z, labels, score=score, **FAST, **options).scores


def values_of(z, labels=None, factors=None, **options):
    table = disentanglement(z, labels, factors, **{**FAST, **options}).table
    return table.loc["latent", "value"]


def slow_information(z, labels, n_bins):
    bins = KBinsDiscretizer(n_bins, encode="ordinal", strategy="uniform").fit_transform(z)
    members = [labels == name for name in np.unique(labels)]
    return [
        [mutual_info_score(one, column) / mutual_info_score(one, one) for one in members]
        for column in bins.T
    ]


@pytest.mark.parametrize("n_bins", [2, 10])
def test_information_is_that_of_a_loop(n_bins):
    z, labels = random_space()
    found = scores_of(z, labels, n_bins=n_bins)
    np.testing.assert_allclose(found, slow_information(z, labels, n_bins), atol=1e-12)
    assert found.columns.tolist() == list("abcd")
    assert found.index.tolist() == [("latent", 0), ("latent", 1), ("latent", 2)]


def test_spearman_and_auc_are_those_of_scipy_and_sklearn():
    z, labels = random_space()
    members = [labels == name for name in "abcd"]
    correlations = [[abs(spearmanr(x, one).statistic) for one in members] for x in z.T]
    areas = [[abs(2 * roc_auc_score(one, x) - 1) for one in members] for x in z.T]
    np.testing.assert_allclose(scores_of(z, labels, "spearman"), correlations, atol=1e-12)
    np.testing.assert_allclose(scores_of(z, labels, "auc"), areas, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (2, 4), (1, 3)])
def test_the_match_is_the_best_of_all_permutations(shape):
    scores = np.random.default_rng(0).random(shape)
    # rows of zeros are the dimensions of unmatched labels
    padded = np.vstack([scores, np.zeros((max(0, shape[1] - shape[0]), shape[1]))])
    every = permutations(range(len(padded)), shape[1])
    sums = [padded[list(rows), np.arange(shape[1])].sum() for rows in every]
    assert axis_scores(scores)["LMS"] == pytest.approx(max(sums) / shape[1])


def test_aggregates_by_hand():
    scores = np.array([[0.9, 0.8], [0.5, 0.1]])
    assert axis_scores(scores)["LMS"] == pytest.approx((0.8 + 0.5) / 2)
    assert axis_scores(scores)["MSAS"] == pytest.approx((0.9 + 0.8) / 2)
    assert axis_scores(scores)["MSGS"] == pytest.approx((0.4 + 0.7) / 2)
    # one dimension has no second-best
    assert axis_scores(scores[:1])["MSGS"] == pytest.approx((0.9 + 0.8) / 2)


@pytest.mark.parametrize("score", ["information", "spearman"])
def test_drvi_returns_the_same(score):
    drvi = pytest.importorskip("drvi.utils.metrics", reason="drvi-py is not installed")
    z, labels = random_space()
    names = {"information": "discrete_scaled_mutual_info_score",
             "spearman": "spearman_correlation_score"}  # fmt: skip
    categories = pd.Series(labels, dtype="category")
    expected = getattr(drvi, names[score])(z, gt_cat_series=categories)
    np.testing.assert_allclose(scores_of(z, labels, score), expected, atol=1e-12)
    found = values_of(z, labels, score=score)
    assert found["LMS"] == pytest.approx(drvi.latent_matching_score(expected))
    assert found["MSAS"] == pytest.approx(drvi.most_similar_averaging_score(expected))
    assert found["MSGS"] == pytest.approx(drvi.most_similar_gap_score(expected))


@pytest.mark.parametrize("score", ["information", "spearman", "auc"])
def test_aligned_dimensions_are_above_rotated_ones(score):
    z, labels = labelled()
    options = {"score": score, "n_bootstrap": 50, "n_permutations": 0}
    aligned = disentanglement(z, labels, **options).table.loc["latent"]
    rotated = disentanglement(z @ ROTATION, labels, **options).table.loc["latent"]
    assert (aligned.loc[["LMS", "MSGS"], "lower"] > rotated.loc[["LMS", "MSGS"], "upper"]).all()


def test_order_sign_and_unit_of_dimensions_do_not_matter():
    z, labels = random_space(n_dimensions=4)
    other = z[:, ::-1] * [-2, 3, -0.1, 1] + 5
    for score in ("spearman", "auc"):
        pd.testing.assert_series_equal(
            values_of(z, labels, score=score), values_of(other, labels, score=score)
        )
    # without ties at the edges of bins
    z = z + 1e-3 * np.random.default_rng(0).random(z.shape)
    other = z[:, ::-1] * [-2, 3, -0.1, 1] + 5
    pd.testing.assert_series_equal(values_of(z, labels), values_of(other, labels))


@pytest.mark.parametrize("score", ["information", "spearman", "auc"])
def test_independent_noise_is_within_the_null(score):
    labels = labelled()[1]
    above = []
    for seed in range(20):
        z = np.random.default_rng(seed).normal(size=(400, 4))
        table = disentanglement(z, labels, score=score, n_bootstrap=0).table
        above.append(table["value"] > table["null_upper"])
        assert (table["null_mean"] < table["null_upper"]).all()
    # 5 % of data sets on average
    assert np.mean(above) < 0.15


def test_intervals_contain_the_value_of_many_cells():
    truth = values_of(*labelled(100_000, noise=1.0))
    inside = []
    for seed in range(1, 41):
        z, labels = labelled(1000, noise=1.0, seed=seed)
        table = disentanglement(z, labels, n_permutations=0, n_bins=10).table.loc["latent"]
        # the edges of bins depend on the cells, which intervals do not include
        inside.append(table["lower"].lt(truth + 0.02) & table["upper"].gt(truth - 0.02))
        assert (table["lower"] <= table["value"]).all()
        assert (table["value"] <= table["upper"]).all()
    assert np.mean(inside) > 0.8


def test_missing_labels_are_dropped():
    z, labels = labelled()
    some = pd.Series(labels).astype("category").cat.add_categories("unused")
    some[:100] = None
    pd.testing.assert_frame_equal(scores_of(z, some), scores_of(z[100:], labels[100:]))


def test_a_constant_dimension_scores_0():
    z, labels = labelled()
    z[:, 1] = 7
    for score in ("information", "spearman", "auc"):
        assert (scores_of(z, labels, score).iloc[1] == 0).all()


def test_names_of_dimensions_are_those_of_a_frame():
    z, labels = labelled()
    frame = pd.DataFrame(z, columns=["w", "x", "y", "z"])
    assert scores_of(frame, labels).loc["latent"].index.tolist() == ["w", "x", "y", "z"]


def expression(n_cells=600):
    """Return log expression of independent programs, activities and the most active program."""
    rng = np.random.default_rng(0)
    activities = rng.exponential(size=(n_cells, 4))
    loadings = rng.random((4, 30))
    values = activities @ loadings + 0.1 * rng.random((n_cells, 30))
    return values, activities, activities.argmax(axis=1)


def test_pca_and_ica_have_rows_of_the_same_dimensions():
    values, z, labels = expression()
    dense = disentanglement(z, labels, log_expression=values, n_permutations=20, n_bootstrap=20)
    assert dense.table.index.get_level_values("space").unique().tolist() == ["latent", "PCA", "ICA"]
    assert dense.scores.groupby("space").size().eq(4).all()
    assert dense.table.notna().all(axis=None)
    assert ((dense.table >= 0) & (dense.table <= 1)).all(axis=None)
    other = disentanglement(
        z, labels, log_expression=sparse.csr_matrix(values), n_permutations=20, n_bootstrap=20
    )
    pca = other.table.loc["PCA", "value"]
    pd.testing.assert_series_equal(pca, dense.table.loc["PCA", "value"], atol=0.01)

    same = disentanglement(z, labels, log_expression=values, n_permutations=20, n_bootstrap=20)
    pd.testing.assert_frame_equal(dense.table, same.table)


def test_ica_finds_independent_programs_and_pca_does_not():
    values, z, _ = expression()
    found = disentanglement(z, factors=z, log_expression=values, **FAST).table["value"]
    assert found["latent", "SAP"] > found["ICA", "SAP"] > 0.8
    assert found["PCA", "SAP"] < 0.6


def test_ica_without_convergence_warns(monkeypatch):
    monkeypatch.setattr(_spaces, "MOST_ITERATIONS", 1)
    values, z, labels = expression()
    with pytest.warns(UserWarning, match="FastICA did not converge in 5 starts"):
        disentanglement(z, labels, log_expression=values, **FAST)


def simulated_factors(n_cells=600, noise=0.1):
    rng = np.random.default_rng(0)
    factors = rng.random((n_cells, 4))
    return factors + noise * rng.normal(size=factors.shape), factors


def test_factors_are_above_rotated_ones_in_every_metric():
    z, factors = simulated_factors()
    aligned, rotated = values_of(z, None, factors), values_of(z @ ROTATION, None, factors)
    names = ["LMS", "MIG", "SAP", "DCI disentanglement", "DCI completeness"]
    assert (aligned[names] > rotated[names] + 0.2).all()
    assert aligned["DCI disentanglement"] > 0.85
    # a rotation keeps all information
    assert min(aligned["DCI informativeness"], rotated["DCI informativeness"]) > 0.6
    # order and sign do not matter
    other = values_of(-z[:, ::-1], None, factors)
    pd.testing.assert_series_equal(aligned, other, atol=0.03)


def test_mig_and_sap_are_those_of_loops():
    z, factors = simulated_factors()
    bins = KBinsDiscretizer(10, encode="ordinal", strategy="uniform")
    left, right = bins.fit_transform(z), bins.fit_transform(factors)
    shares = np.array([
        [mutual_info_score(x, y) / mutual_info_score(y, y) for y in right.T] for x in left.T
    ])  # fmt: skip
    top = np.sort(shares, axis=0)
    found = disentanglement(z, factors=factors, **FAST)
    np.testing.assert_allclose(found.scores, shares, atol=1e-9)
    assert found.table.loc[("latent", "MIG"), "value"] == pytest.approx((top[-1] - top[-2]).mean())
    squares = np.sort(np.corrcoef(z.T, factors.T)[:4, 4:] ** 2, axis=0)
    sap = (squares[-1] - squares[-2]).mean()
    assert found.table.loc[("latent", "SAP"), "value"] == pytest.approx(sap)


def test_independent_factors_are_near_the_null():
    z, factors = simulated_factors()
    noise = np.random.default_rng(1).normal(size=z.shape)
    table = disentanglement(noise, factors=factors, n_permutations=20, n_bootstrap=20).table
    assert table.notna().all(axis=None)
    assert (table["value"] < table["null_upper"] + 0.03).all()
    signal = disentanglement(z, factors=factors, n_permutations=20, n_bootstrap=20).table
    assert (signal["lower"] > signal["null_upper"]).all()


def test_one_dimension_has_no_completeness():
    z, factors = simulated_factors()
    assert np.isnan(values_of(z[:, :1], None, factors)["DCI completeness"])
    assert np.isnan(values_of(z, None, factors[:, :1])["DCI disentanglement"])


def wrong(change):
    z, labels = labelled()
    arguments = {"z": z, "labels": labels}
    arguments.update(change(z, labels))
    return arguments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, a: {"labels": a[:5]}, "`labels` has 5 rows, but `z` has 400 cells"),
        (lambda z, a: {"labels": ["a"] * 400}, r"`labels` has 1 label: \['a'\]"),
        (lambda z, a: {"labels": [None] * 400}, "`labels` has 0 label"),
        (lambda z, a: {"labels": ["x", *a[1:]]}, "1 of 5 labels have one cell, e.g. 'x'. Merge"),
        (lambda z, a: {"labels": z[:, 0]}, "400 of 400 labels have one cell.*`factors`"),
        (lambda z, a: {"labels": z}, "`labels` must have one axis"),
        (lambda z, a: {"z": np.where(np.arange(4) == 2, np.nan, z)}, "at cell 0, dimension 2"),
        (lambda z, a: {"z": z[:, 0]}, r"`z` must have two axes.*z\[:, None\]"),
        (lambda z, a: {"labels": None}, "Pass either `labels`"),
        (lambda z, a: {"factors": z}, "Pass either `labels`"),
        (lambda z, a: {"labels": None, "factors": z[:9]}, "`factors` has 9 rows"),
        (lambda z, a: {"labels": None, "factors": np.zeros((400, 2))}, "The factor 0 is 0 in all cells. Drop"),
        (lambda z, a: {"labels": None, "factors": z * np.inf}, "at cell 0, factor 0"),
        (lambda z, a: {"labels": None, "factors": z, "score": "auc"}, "must be 'information'"),
        (lambda z, a: {"labels": None, "factors": z[:9], "z": z[:9]}, "Only 9 cells"),
        (lambda z, a: {"score": "mi"}, "score must be one of 'information', 'spearman', 'auc'"),
        (lambda z, a: {"n_bins": 1}, "n_bins must be at least 2"),
        (lambda z, a: {"n_bootstrap": -1}, "n_bootstrap must be a whole number of at least 0"),
        (lambda z, a: {"n_permutations": 2.5}, "n_permutations must be a whole number"),
        (lambda z, a: {"log_expression": z[:7]}, "`log_expression` has 7 rows"),
        (lambda z, a: {"log_expression": z}, "needs more than 4 cells and genes"),
        (lambda z, a: {"log_expression": np.arange(4000).reshape(400, 10)}, "as raw counts do"),
        (lambda z, a: {"log_expression": np.full((400, 10), np.nan)}, "not finite"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        disentanglement(**wrong(change))


def test_texts_are_no_factors():
    z, labels = labelled()
    with pytest.raises(
        TypeError, match=r"factor 'type' has the type .*pass categories as `labels`"
    ):
        disentanglement(z, factors=pd.DataFrame({"type": labels}))
    with pytest.raises(TypeError, match="`z` must hold numbers"):
        disentanglement(np.array([["a"], ["b"]]), ["a", "b"])
