"""Molecules held out: split fairly, scored as elsewhere, and telling right from wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.metrics import mean_poisson_deviance

from betavi.diagnostics import (
    BASELINES,
    HeldOutMolecules,
    Thinned,
    nb_deviance,
    poisson_deviance,
    poisson_loss,
    report_denoising,
    thin,
)
from betavi.diagnostics.smoothing import NULL


def unsorted(counts):
    matrix = sparse.csr_matrix(counts)
    for row in range(matrix.shape[0]):
        some = slice(matrix.indptr[row], matrix.indptr[row + 1])
        matrix.indices[some] = matrix.indices[some][::-1].copy()
        matrix.data[some] = matrix.data[some][::-1].copy()
    matrix.has_sorted_indices = False
    return matrix


@pytest.fixture
def rates():
    """Two types of cells of different depth, and genes of which half differ between them."""
    rng = np.random.default_rng(0)
    profile = rng.gamma(1.0, 1.0, size=60)
    other = profile * np.where(np.arange(60) < 30, rng.choice([0.05, 8.0], size=60), 1.0)
    profiles = np.stack([profile / profile.sum(), other / other.sum()])
    depth = rng.lognormal(6, 0.4, size=(800, 1))
    return depth * profiles[rng.integers(2, size=800)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, unsorted]
)
def test_every_molecule_is_in_one_part(kind):
    counts = np.random.default_rng(0).poisson(3.0, size=(200, 40)).astype(np.int32)
    thinned = thin(kind(counts), 0.25)
    np.testing.assert_array_equal((thinned.kept + thinned.held_out).toarray(), counts)
    assert thinned.kept.data.min() > 0
    assert thinned.held_out.sum() / counts.sum() == pytest.approx(0.25, abs=0.01)
    assert thinned.odds == pytest.approx(1 / 3)
    assert (thin(counts, 0.25, seed=1).kept != thinned.kept).nnz
    # each count by itself
    p = [stats.binomtest(int(h), int(n), 0.25).pvalue for h, n in zip(
        thinned.held_out.toarray().ravel(), counts.ravel(), strict=True) if n > 0]  # fmt: skip
    assert np.mean(np.array(p) < 0.01) < 0.02


def test_parts_of_poisson_counts_are_independent():
    counts = np.random.default_rng(0).poisson(4.0, size=(40_000, 1))
    thinned = thin(counts, 0.5)
    kept, held_out = thinned.kept.toarray().ravel(), thinned.held_out.toarray().ravel()
    assert stats.pearsonr(kept, held_out).pvalue > 0.01


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2])
def test_bad_fractions(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        thin(np.ones((2, 2)), fraction)


def test_what_are_no_molecules():
    with pytest.raises(ValueError, match="whole numbers"):
        thin(np.full((2, 2), 0.5))


def test_deviances_beside_libraries():
    rng = np.random.default_rng(0)
    counts, rate = rng.poisson(2.0, size=(50, 20)).astype(float), rng.gamma(2, size=(50, 20))
    expected = mean_poisson_deviance(counts.ravel(), rate.ravel())
    assert poisson_deviance(counts, rate).mean() == pytest.approx(expected)
    log_mass = stats.poisson.logpmf(counts, rate)
    off = poisson_loss(counts, rate) + log_mass
    # what is left does not depend on the rate
    np.testing.assert_allclose(off, stats.poisson.logpmf(counts, 1.0) + 1.0)
    theta = rng.gamma(2, size=20)

    def log_nb(mean):
        return stats.nbinom.logpmf(counts, theta, theta / (theta + mean))

    found = nb_deviance(counts, rate, theta)
    # of a count of zero the best mean is zero
    best = np.where(counts > 0, counts, 1e-12)
    np.testing.assert_allclose(found, 2 * (log_nb(best) - log_nb(rate)), atol=1e-8)
    np.testing.assert_allclose(
        nb_deviance(counts, rate, np.full(20, 1e9)), poisson_deviance(counts, rate), atol=1e-5
    )


def test_the_truth_has_the_lowest_loss_and_the_score_is_not_the_other_way_round(rates):
    counts = np.random.default_rng(1).poisson(rates)
    loss = {power: poisson_loss(counts, rates**power).mean() for power in (0.8, 1.0, 1.2)}
    assert min(loss, key=loss.get) == 1.0
    scales = {scale: poisson_loss(counts, scale * rates).mean() for scale in (0.8, 1.0, 1.25)}
    assert min(scales, key=scales.get) == 1.0


def scored(rates, seed=1, **more):
    counts = np.random.default_rng(seed).poisson(rates)
    held_out = HeldOutMolecules(thin(counts, 0.2, seed=seed))
    scores = {
        name: held_out.score(rows(held_out.thinned.kept, 0)) for name, rows in BASELINES.items()
    }
    scores["truth"] = held_out.score([0.8 * rates])
    scores |= {name: held_out.score([values]) for name, values in more.items()}
    names = [f"gene_{i}" for i in range(rates.shape[1])]
    return held_out, scores, report_denoising(held_out, scores, ["truth", *more], names)


def test_the_truth_is_first_and_genes_that_differ_are_trusted(rates):
    _, scores, report = scored(rates)
    assert report.methods.index[0] == report.chosen == "truth"
    assert report.methods.loc[NULL, "explained"] == pytest.approx(0, abs=1e-12)
    for column in ("poisson_deviance", "nb_deviance"):
        assert report.methods[column].idxmin() == "truth"
    losses = report.methods["poisson_loss"]
    assert losses["truth"] < losses["kNN smoothing"] < losses[NULL] < losses["raw counts"]
    assert (report.methods["behind"].iloc[1:] > 2 * report.methods["behind_se"].iloc[1:]).all()
    differ, same = report.genes["trusted"][:30], report.genes["trusted"][30:]
    assert differ.mean() > 0.9
    assert (report.explained["raw counts"][30:] < 0).mean() > 0.8
    # depths and shares differ a little of genes that do not: they are composition
    assert report.trusted_share == (differ.sum() + same.sum()) / 60
    assert "significantly better than the gene mean" in str(report)
    assert scores["truth"].losses.shape == (800,)


@pytest.mark.parametrize("n_batches", [1, 6, 60])
def test_where_cells_differ_in_depth_only_hardly_a_gene_is_trusted(n_batches):
    """The level of the test: what smooths noise, and what is right, are no better than the null."""
    rng = np.random.default_rng(3)
    depth = rng.lognormal(6, 0.4, size=(600, 1))
    profile = rng.gamma(1.0, 1.0, size=400)
    rates = depth * profile / profile.sum()
    counts = rng.poisson(rates)
    held_out = HeldOutMolecules(thin(counts, 0.2), np.arange(600) % n_batches)
    kept = held_out.thinned.kept
    scores = {name: held_out.score(rows(kept, 0)) for name, rows in BASELINES.items()}
    # which batches are not in
    scores["of all cells"], scores[NULL] = scores[NULL], held_out.score_null()
    for own in ("kNN smoothing", "truncated SVD", "of all cells"):
        report = report_denoising(held_out, scores, [own], np.arange(400))
        assert report.trusted_share < 0.05
        assert "significantly better" in str(report)


def test_means_of_batches_are_the_null_where_batches_differ():
    rng = np.random.default_rng(0)
    batch = np.arange(600) % 3
    profile = np.tile(rng.gamma(1.0, 4.0, size=40), (3, 1))
    profile[:, :20] = rng.gamma(1.0, 4.0, size=(3, 20))
    held_out = HeldOutMolecules(thin(rng.poisson(profile[batch]), 0.2), batch)
    null = np.concatenate([held_out.null(slice(0, 300)), held_out.null(slice(300, 600))])
    assert null.shape == (600, 40)
    expected = 0.8 * profile[batch]
    assert np.abs(null[:, :20] - expected[:, :20]).mean() < 0.1 * expected.mean()
    assert held_out.score_null().gain == pytest.approx(0)


def test_blocks_do_not_matter(rates):
    held_out, scores, _ = scored(rates)
    again = held_out.score(np.array_split(0.8 * rates, 7))
    np.testing.assert_allclose(again.losses, scores["truth"].losses)
    np.testing.assert_allclose(again.gain, scores["truth"].gain)
    assert again.mse_log == pytest.approx(scores["truth"].mse_log)


def test_levels_are_told(rates):
    _, _, report = scored(rates, almost=0.8 * rates * 1.0001, far=0.8 * rates * 3)
    assert set(report.ties) == {"truth", "almost"}
    assert "Methods equal within one standard error" in str(report)


def test_expecting_nothing_is_not_infinitely_wrong(rates):
    _, _, report = scored(rates, nothing=np.zeros_like(rates))
    assert np.isfinite(report.methods.to_numpy(dtype=float)).all()
    assert report.methods.index[-1] == "nothing"
    assert np.isfinite(report.genes["z"]).all()


def test_dispersions_are_those_of_the_counts():
    rng = np.random.default_rng(0)
    mean = rng.lognormal(1, 0.3, size=(3000, 1)) * rng.gamma(2, 1, size=60)
    counts = rng.poisson(mean * rng.gamma(2.0, 0.5, size=mean.shape))
    theta = HeldOutMolecules(thin(counts, 0.1)).theta
    assert np.median(theta) == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_expects_as_many_molecules_as_there_are(name, rates):
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(rates).astype(np.float32))
    counts[5] = 0
    counts.eliminate_zeros()
    expected = np.concatenate(list(BASELINES[name](counts, 0)))
    assert expected.shape == counts.shape
    assert (expected >= 0).all()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    np.testing.assert_allclose(expected.sum(axis=1), totals, rtol=0.03)
    assert expected[5].sum() == 0
    again = np.concatenate(list(BASELINES[name](counts, 0)))
    np.testing.assert_array_equal(again, expected)


def test_neighbours_and_directions_find_the_types(rates):
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(rates * 20).astype(np.float32))
    for name, tolerance in (("kNN smoothing", 0.12), ("truncated SVD", 0.25)):
        found = np.concatenate(list(BASELINES[name](counts, 0)))
        off = np.abs(found - 20 * rates).sum() / (20 * rates).sum()
        assert off < tolerance


def test_thinned_by_hand():
    part = sparse.csr_matrix(np.ones((3, 2)))
    assert Thinned(part, part, 0.5).odds == 1
