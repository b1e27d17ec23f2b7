from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from betavi.datasets import simulate_counts
from betavi.metrics import LinearModel, pca_rate_distortion


@pytest.fixture
def counts():
    return simulate_counts(n_cells=400, n_genes=15, seed=1).X


def test_the_posterior_is_that_of_a_joint_normal_distribution(counts):
    model = LinearModel(counts, 3)
    logs = np.log1p(1e4 * counts.toarray() / counts.toarray().sum(axis=1, keepdims=True))
    marginal = model.loadings @ model.loadings.T + np.diag(model.variance)
    gain = model.loadings.T @ np.linalg.inv(marginal)
    mean, covariance = model.posterior(counts)
    np.testing.assert_allclose(mean, (logs - model.mean) @ gain.T, atol=1e-6)
    np.testing.assert_allclose(covariance, np.eye(3) - gain @ model.loadings, atol=1e-8)
    # what PCA leaves of a gene is its residual variance
    np.testing.assert_allclose(np.diag(marginal), logs.var(axis=0), rtol=0.01)


def test_the_rate_is_the_divergence_from_the_prior(counts):
    model = LinearModel(counts, 2)
    mean, covariance = model.posterior(counts)
    rng = np.random.default_rng(0)
    estimates = []
    for cell in mean[:20]:
        q = stats.multivariate_normal(cell, covariance)
        draws = q.rvs(20_000, random_state=rng)
        prior = stats.multivariate_normal(np.zeros(2))
        estimates.append((q.logpdf(draws) - prior.logpdf(draws)).mean())
    assert model.score(counts[:20]).rate == pytest.approx(np.mean(estimates), rel=0.02)


def test_scores_are_of_probabilities(counts):
    score = LinearModel(counts[:300], 3).score(counts[300:], n_samples=50)
    assert score.evidence > score.row()["elbo"]
    assert score.distortion > 0
    assert score.observed.mean == pytest.approx(counts[300:].toarray().mean(axis=0))


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_array, np.asarray])
def test_containers_do_not_matter(counts, container):
    expected = pca_rate_distortion(counts[:300], counts[300:], [2])
    dense = counts.toarray()
    found = pca_rate_distortion(container(dense[:300]), container(dense[300:]), [2])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_more_components_cost_rate_and_save_distortion(counts):
    table = pca_rate_distortion(counts[:300], counts[300:], [1, 2, 4])
    assert table["rate"].is_monotonic_increasing
    assert table["distortion"].iloc[0] > table["distortion"].iloc[-1]
