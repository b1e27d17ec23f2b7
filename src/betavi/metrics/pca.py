"""PCA of log counts as a linear autoencoder, a baseline without a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.decomposition import PCA

from betavi import _blocks
from betavi.data.start_values import TARGET_SUM, log_normalised
from betavi.diagnostics import CountTerms, ScoreSums
from betavi.likelihoods.lognormal import LogNormal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.diagnostics import CountScore

SMALLEST_VARIANCE = 1e-4  # smallest residual variance of a gene


class LinearModel:
    r"""PCA of log counts as a model of counts, with a normal residual per gene.

    log(1 + counts per 10,000) is :math:`\mu + W z + \epsilon`, where z is standard normal. The
    columns of W are the components times the standard deviations of their scores. The variance of
    :math:`\epsilon` is fitted to each gene's residuals.

    Parameters
    ----------
    counts
        Counts of the training cells, ``(n_cells, n_genes)``, dense or sparse.
    n_components
        Number of components.

    References
    ----------
    Tipping & Bishop (1999), Probabilistic principal component analysis.

    Examples
    --------
    >>> import betavi
    >>> counts = betavi.datasets.simulate_counts(n_cells=200, n_genes=20).X
    >>> model = betavi.metrics.LinearModel(counts[:150], n_components=2)
    >>> model.posterior(counts[150:])[0].shape, model.score(counts[150:]).rate > 0
    ((50, 2), True)
    """

    def __init__(self, counts: Any, n_components: int) -> None:
        logs = log_normalised(counts)
        pca = PCA(n_components, svd_solver="arpack", random_state=0).fit(logs)
        self.loadings = pca.components_.T * np.sqrt(pca.explained_variance_)
        self.mean = pca.mean_
        square = np.asarray(logs.power(2).mean(axis=0)).ravel()
        left = square - np.square(self.mean) - np.square(self.loadings).sum(axis=1)
        self.variance = left.clip(SMALLEST_VARIANCE)
        weighted = self.loadings / self.variance[:, None]
        self.covariance = np.linalg.inv(np.eye(n_components) + self.loadings.T @ weighted)
        self._to_mean = weighted @ self.covariance

    def posterior(self, counts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the posterior means, ``(n_cells, n_components)``, and the common covariance."""
        logs = log_normalised(counts)
        return np.asarray(logs @ self._to_mean) - self.mean @ self._to_mean, self.covariance

    def score(self, counts: Any, n_samples: int = 10, seed: int = 0) -> CountScore:
        """Score integer counts, ``(n_cells, n_genes)``, by their probability at posterior draws."""
        rng = np.random.default_rng(seed)
        counts, sums = sparse.csr_array(counts), ScoreSums()
        for start in range(0, counts.shape[0], _blocks.SCORED_CELLS):
            some = counts[start : start + _blocks.SCORED_CELLS]
            sums.add(some.toarray().astype(float), self._terms(some, n_samples, rng))
        return sums.score()

    def _terms(
        self, counts: sparse.csr_array, n_samples: int, rng: np.random.Generator
    ) -> CountTerms:
        mean, covariance = self.posterior(counts)
        noise = rng.standard_normal((n_samples, *mean.shape))
        z = mean + noise @ np.linalg.cholesky(covariance).T
        log_det = np.linalg.slogdet(covariance)[1]
        # KL of normal distributions from the standard normal
        squares = np.square(mean).sum(axis=1)
        rate = (np.trace(covariance) + squares - mean.shape[1] - log_det) / 2
        log_ratio = (np.square(z).sum(axis=2) - np.square(noise).sum(axis=2) - log_det) / 2
        dense = torch.as_tensor(counts.toarray(), dtype=torch.float64)
        px = LogNormal(
            torch.as_tensor(z @ self.loadings.T + self.mean),
            torch.as_tensor(np.sqrt(self.variance)),
            TARGET_SUM / dense.sum(dim=1, keepdim=True),
        )
        zeros = px.log_mass(torch.zeros_like(dense)).exp()
        others = (part.numpy() for part in (px.log_detection(dense), zeros, px.mean, px.variance))
        return CountTerms(px.log_mass(dense).numpy(), log_ratio, rate, np.zeros_like(rate), *others)


def pca_rate_distortion(
    train: Any, held_out: Any, n_components: Sequence[int] = (1, 2, 5, 10, 20, 50)
) -> pd.DataFrame:
    """Return rate and distortion of PCA, to compare with a model's curve.

    Parameters
    ----------
    train
        Raw counts of the cells to fit, ``(n_cells, n_genes)``.
    held_out
        Raw counts of the cells to score, ``(n_cells, n_genes)``.
    n_components
        Numbers of components, one row each. Numbers too large for the training data are left out.

    Returns
    -------
    Columns ``n_components``, ``rate`` (KL divergence from the prior), ``distortion`` and ``elbo``,
    nats per held-out cell. The distortion is the negative log-probability of the counts, as for the
    likelihoods zinb, nb and poisson.

    Examples
    --------
    >>> import betavi
    >>> counts = betavi.datasets.simulate_counts(n_cells=200, n_genes=20).X
    >>> betavi.metrics.pca_rate_distortion(counts[:150], counts[150:], [1, 2]).shape
    (2, 4)
    """
    rows = []
    most = min(train.shape) - 1
    for number in (number for number in n_components if number <= most):
        row = LinearModel(train, number).score(held_out).row()
        rows.append({"n_components": number} | {k: row[k] for k in ("rate", "distortion", "elbo")})
    return pd.DataFrame(rows)
