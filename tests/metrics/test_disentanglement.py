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


def slow_match(scores):
    """Return the mean score of the best of all one-to-one matches."""
    shape = np.shape(scores)
    # rows of zeros are the dimensions of unmatched labels
    padded = np.vstack([scores, np.zeros((max(0, shape[1] - shape[0]), shape[1]))])
    every = permutations(range(len(padded)), shape[1])
    return max(padded[list(rows), np.arange(shape[1])].sum() for rows in every) / shape[1]


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (2, 4), (1, 3)])
def test_the_match_is_the_best_of_all_permutations(shape):
    scores = np.random.default_rng(0).random(shape)
    assert axis_scores(scores)["LMS"] == pytest.approx(slow_match(scores))


def test_aggregates_by_hand():
    scores = np.array([[0.9, 0.8], [0.5, 0.1]])
    assert axis_scores(scores)["LMS"] == pytest.approx((0.8 + 0.5) / 2)
    assert axis_scores(scores)["MSAS"] == pytest.approx((0.9 + 0.8) / 2)
    assert axis_scores(scores)["MSGS"] == pytest.approx((0.4 + 0.7) / 2)
    # one dimension has no second-best
    assert axis_scores(scores[:1])["MSGS"] == pytest.approx((0.9 + 0.8) / 2)


@pytest.mark.parametrize("n_dimensions", [2, 4, 6])
@pytest.mark.parametrize("score", ["information", "spearman"])
def test_metrics_are_those_of_loops_over_all_pairs(score, n_dimensions):
    """The definitions of DRVI, with scikit-learn and scipy for a pair, and all matches in turn."""
    z, labels = random_space(n_dimensions=n_dimensions, seed=n_dimensions)
    members = [labels == name for name in "abcd"]
    pairs = {
        "information": lambda: slow_information(z, labels, 10),
        "spearman": lambda: [[abs(spearmanr(x, one).statistic) for one in members] for x in z.T],
    }[score]()
    of_labels = [sorted(column) for column in np.transpose(pairs)]
    found = values_of(z, labels, score=score)
    assert found["LMS"] == pytest.approx(slow_match(pairs))
    assert found["MSAS"] == pytest.approx(np.mean([column[-1] for column in of_labels]))
    assert found["MSGS"] == pytest.approx(np.mean([one[-1] - one[-2] for one in of_labels]))


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


def few_cells(seed):
    return labelled(500, noise=1.0, seed=seed)


@pytest.mark.slow
def test_intervals_contain_the_value_expected_for_as_many_cells():
    expected = pd.DataFrame([values_of(*few_cells(10_000 + seed)) for seed in range(300)]).mean()
    inside = []
    for seed in range(200):
        table = disentanglement(*few_cells(seed), n_permutations=0).table.loc["latent"]
        inside.append(table["lower"].le(expected) & table["upper"].ge(expected))
        assert (table["lower"] <= table["value"]).all()
        assert (table["value"] <= table["upper"]).all()
    # 0.87, as documented. Intervals of 80 % or without the correction of bias contain it less often,
    # those of 98 % more often
    assert pd.DataFrame(inside).mean().between(0.84, 0.9).all()


def test_informations_of_few_cells_are_biased_upward():
    few = pd.DataFrame([values_of(*few_cells(seed)) for seed in range(50)])
    many = values_of(*labelled(100_000, noise=1.0))
    assert few["MSAS"].mean() > many["MSAS"] + 3 * few["MSAS"].sem()


@pytest.mark.parametrize("kind", ["labels", "factors"])
def test_an_outlying_cell_lowers_scores_until_it_is_clipped(kind):
    z, labels = labelled(noise=0.5)
    truth = {"labels": labels} if kind == "labels" else {"factors": z.copy()}
    before = values_of(z, **truth)["LMS"]
    z[0] = 1000
    with pytest.warns(UserWarning, match=r"4 of 4 dim.* In dimension 0, 1 cells are.* clip `z`"):
        outlying = values_of(z, **truth)["LMS"]
    clipped = np.clip(z, *np.quantile(z, [0.01, 0.99], axis=0))
    assert outlying < 0.5 * before
    assert values_of(clipped, **truth)["LMS"] > 0.7 * before


def test_no_other_dimension_is_called_outlying(recwarn):
    z, labels = labelled()
    z[:, 1] = 7
    values_of(z, labels)
    z[0] = 1000
    # ranks need no bins
    values_of(z, labels, score="auc")
    # a cell without a label has no influence
    values_of(z, pd.Series(labels).where(np.arange(400) > 0))
    assert not recwarn.list


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


@pytest.mark.parametrize("kind", ["labels", "factors", "log_expression"])
def test_rows_are_matched_by_name_or_refused(kind):
    z, labels = labelled()
    cells = [f"cell {number}" for number in range(400)]
    frame = pd.DataFrame(z, index=cells)
    truth = {"labels": pd.Series(labels, cells)} if kind != "factors" else {"factors": frame}
    if kind == "log_expression":
        truth[kind] = pd.DataFrame(np.random.default_rng(0).random((400, 9)), cells)
    expected = disentanglement(frame, **truth, **FAST).table

    def same(z, other):
        found = disentanglement(z, **{**truth, kind: other}, **FAST).table
        pd.testing.assert_frame_equal(found.loc[["latent"]], expected.loc[["latent"]])

    given = truth[kind]
    same(frame, given.set_axis(pd.Index(cells, dtype="string")))
    # arrays have no names
    same(z, given)
    same(frame, given.to_numpy())
    mixed = given.iloc[[1, 0, *range(2, 400)]]
    message = (
        f"`{kind}` and `z` have different cells in 2 rows, e.g. 'cell 1' and 'cell 0' in row 0"
    )
    with pytest.raises(ValueError, match=rf"{message}.*`{kind}.loc\[z.index\]`"):
        same(frame, mixed)
    same(frame, mixed.loc[frame.index])
    with pytest.raises(ValueError, match=r"400 rows, e.g. 0 and 'cell 0'.*to_numpy"):
        same(frame, given.reset_index(drop=True))


@pytest.mark.parametrize(
    "form", [sparse.csr_matrix, sparse.coo_array, pd.DataFrame.sparse.from_spmatrix]
)
def test_sparse_spaces_are_those_of_arrays(form):
    z, labels = labelled()
    z[z < 0] = 0
    given = form(sparse.csr_matrix(z))
    pd.testing.assert_frame_equal(scores_of(given, labels), scores_of(z, labels))
    pd.testing.assert_frame_equal(
        disentanglement(z, factors=given, **FAST).table, disentanglement(z, factors=z, **FAST).table
    )


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


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_expression_of_too_few_directions_is_refused(form):
    values, z, labels = expression()
    rank_two = values[:, :2] @ np.random.default_rng(0).random((2, 30))
    with pytest.raises(ValueError, match=r"has 2 independent genes, but `z` has 4 dim.*Pass all"):
        disentanglement(z, labels, log_expression=form(rank_two), **FAST)
    with pytest.raises(ValueError, match=r"is the same in all cells\. Pass genes"):
        disentanglement(z, labels, log_expression=form(np.tile(values[:1], (600, 1))), **FAST)
    with pytest.raises(ValueError, match=r"is the same in all cells\. Pass genes"):
        disentanglement(z, labels, log_expression=form(np.zeros((600, 30))), **FAST)


def test_bins_are_at_most_as_many_as_cells():
    z, labels = labelled()
    few = pd.Series(labels).where(np.arange(400) >= 100)
    assert (scores_of(z, few, n_bins=300) <= 1).all(axis=None)
    with pytest.raises(
        ValueError, match="n_bins must be at most the number of cells, 300, not 301"
    ):
        scores_of(z, few, n_bins=301)
    # ranks need no bins
    scores_of(z, few, "auc", n_bins=301)


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
