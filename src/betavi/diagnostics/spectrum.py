r"""Directions in which cells differ, and the number that a linear VAE would keep active.

In a linear Gaussian VAE with noise :math:`\sigma^2` and weight β on the rate (KL), a direction with
variance :math:`\lambda` is active only if :math:`\lambda > \beta \sigma^2` (Lucas et al., 2019,
Don't blame the ELBO!). Counts are converted to deviance residuals in units of each gene's noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh
from scipy.special import xlogy
from scvi.utils import track

from betavi import _blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Pair = tuple[np.ndarray, np.ndarray]
    Residual = Callable[[np.ndarray, np.ndarray], np.ndarray]

MOST_DIRECTIONS = 100
N_FLIPS, N_ROUNDS = 3, 3
ACCURACY = 1e-5  # relative, of the largest variance with random signs
MARGIN = 1.05  # least ratio to the largest variance with random signs; about 1 without signal


@dataclass(frozen=True)
class SignalSpectrum:
    """Strength of the directions in which cells differ, in units of the noise.

    Parameters
    ----------
    signals
        Signal variance divided by noise variance, of each significant direction, descending,
        ``(n_factors,)``.
    noise
        Residual variance divided by the mean, of each feature, ``(n_features,)``. NaN for a feature
        without counts.
    median_total
        Median total count of a cell.

    Examples
    --------
    >>> spectrum = SignalSpectrum(np.array([9.0, 3.0]), np.ones(20), median_total=1000.0)
    >>> spectrum.n_factors, spectrum.active_at(5.0)
    (2, 1)
    """

    signals: np.ndarray
    noise: np.ndarray
    median_total: float

    @property
    def n_factors(self) -> int:
        """Number of significant directions. A factor can appear as several directions."""
        return len(self.signals)

    def active_at(self, beta: float) -> int:
        """Return the number of active directions of a linear VAE at β. With NaN, all are active."""
        return alive_in_theory(1 + self.signals, 1.0, 0.0 if np.isnan(beta) else beta)

    def is_starved(self, beta: float, n_latent: int) -> bool:
        """Return True if at most 50 % of the directions that could be active are active at β."""
        possible = min(n_latent, self.n_factors)
        return possible > 0 and min(n_latent, self.active_at(beta)) <= possible / 2

    def beta_that_keeps(self, n_latent: int) -> float:
        """Return a β, at most 1, at which the strongest ``n_latent`` directions are all active."""
        kept = self.signals[:n_latent]
        return min(1.0, (1 + float(kept[-1])) / 2) if len(kept) else 1.0


def alive_in_theory(variances: np.ndarray, noise: float, beta: float) -> int:
    r"""Return the number of active dimensions of a linear Gaussian VAE (Lucas et al., 2019).

    Parameters
    ----------
    variances
        Eigenvalues of the covariance of the data, signal plus noise, ``(n_directions,)``.
    noise
        Noise variance :math:`\sigma^2` of the decoder.
    beta
        Weight of the rate (KL divergence from the prior).

    Returns
    -------
    Number of variances above :math:`\beta \sigma^2`.

    Examples
    --------
    >>> [alive_in_theory(np.array([9.0, 4.0, 1.5, 1.0]), 1.0, beta) for beta in (1, 2, 5, 10)]
    [3, 2, 1, 0]
    """
    return int((np.asarray(variances) > beta * noise).sum())


def signal_spectrum(
    counts: sparse.csr_array | np.ndarray,
    groups: np.ndarray | None = None,
    covariates: np.ndarray | None = None,
    assays: np.ndarray | None = None,
    rng: np.random.Generator | int = 0,
    show_progress: bool = False,
    are_counts: bool = True,
) -> SignalSpectrum:
    """Find the directions in which cells differ by more than noise.

    Counts are converted to deviance residuals (Townes et al., 2019). Each gene is scaled by its
    variance outside the directions. Residuals with random signs have no common direction. A
    direction is significant if its variance exceeds the largest variance of such residuals (Hong et
    al., 2020). Signals are corrected for the variance that noise adds (Baik & Silverstein, 2006).

    Parameters
    ----------
    counts
        Nonnegative values, ``(n_cells, n_features)``. The cost grows with the square of the cells.
    groups
        Codes, such as batches, ``(n_cells, ...)``. Differences between the means of combinations of
        codes are not signal.
    covariates
        Numbers, ``(n_cells, n_covariates)``. Their linear effects are not signal.
    assays
        Code of the assay of each feature, ``(n_features,)``. Assays with codes from 0 are corrected
        for the total of the assay. Features with code -1 are not corrected for a total.
    rng
        Generator or seed of the random signs.
    show_progress
        Show a progress bar.
    are_counts
        If False, values are any numbers with noise of constant variance, such as coefficients of
        images. Residuals are then differences from the mean, and the noise has no unit. Features have
        code -1 in ``assays``.

    Returns
    -------
    Strength of each direction, and noise of each feature.

    References
    ----------
    Townes et al. (2019), Feature selection and dimension reduction for single-cell RNA-Seq based on
    a multinomial model. Hong, Sheng & Dobriban (2020), Selecting the number of components in PCA
    via random signflips. Baik & Silverstein (2006), Eigenvalues of large sample covariance matrices
    of spiked population models.

    Examples
    --------
    >>> from betavi.datasets import simulate_counts
    >>> adata = simulate_counts(n_factors=3, n_batches=1, n_types=1)
    >>> signal_spectrum(adata.X).n_factors >= 3
    True
    """
    rng = np.random.default_rng(rng)
    columns: Any = sparse.csc_array(counts, dtype=np.float64) if are_counts else _raised(counts)
    n_cells = columns.shape[0]
    codes = np.zeros(n_cells, dtype=int)
    if groups is not None:
        codes = np.unique(groups, axis=0, return_inverse=True)[1].ravel()
    covariates = np.zeros((n_cells, 0)) if covariates is None else covariates
    assays = np.zeros(columns.shape[1], dtype=int) if assays is None else assays
    k = min(MOST_DIRECTIONS, n_cells // 4, columns.shape[1])
    noise, found = np.ones(columns.shape[1]), np.zeros((n_cells, 0))
    for _ in range(2):
        residuals = _Residuals(columns, (codes, covariates), assays, noise, are_counts)
        noise = residuals.noise_without(found)
    # noise and random signs need residuals without the directions found so far
    for _ in track(range(N_ROUNDS), "Finding directions in the data", disable=not show_progress):
        largest = [_spectrum(residuals, noise, 1, found, rng)[0][0] for _ in range(N_FLIPS)]
        values, vectors = _spectrum(residuals, noise, k)
        values = values[values > MARGIN * residuals.inflation() * np.mean(largest)]
        found = vectors[:, : len(values)]
        noise = residuals.noise_without(found)
    # the signals whose sample variances are the values, at a noise of 1
    gamma = columns.shape[1] / n_cells
    excess = values - 1 - gamma
    signals = (excess + np.sqrt(np.maximum(np.square(excess) - 4 * gamma, 0))) / 2
    of = _pearson if are_counts else _difference
    noise = np.where(residuals.has_counts, residuals.noise_without(found, of), np.nan)
    return SignalSpectrum(signals, noise, float(np.median(columns.sum(axis=1))))


class _Residuals:
    """Deviance residuals of counts, computed in blocks of genes."""

    def __init__(
        self,
        counts: sparse.csc_array | np.ndarray,
        known: Pair,
        assays: np.ndarray,
        noise: np.ndarray,
        are_counts: bool,
    ) -> None:
        self.usual = _deviance if are_counts else _difference
        codes, covariates = known
        self.counts, self.codes, self.assays = counts, codes, assays
        # else one variable gene dominates the total, and all others seem to vary against it
        weights = np.eye(assays.max() + 2)[assays] / np.maximum(noise, 1.0)[:, None]
        self.totals = np.asarray(counts @ weights)
        self.totals[:, -1] = 1.0
        groups = np.eye(codes.max() + 1)[codes]
        sums = np.asarray(counts.T @ groups)
        self.shares = sums / np.maximum((groups.T @ self.totals).T[assays], 1e-12)
        # residuals of small counts are skewed, more so in shallow cells
        curves = [np.ones((len(codes), 1))]
        for depth in np.log(np.maximum(self.totals[:, :-1], 1e-12)).T:
            curves.append(np.vander((depth - depth.mean()) / (depth.std() or 1.0), 3)[:, :2])
        self.known = np.linalg.qr(np.hstack([*curves, covariates - covariates.mean(axis=0)]))[0]
        self.n_known = groups.shape[1] - 1 + self.known.shape[1]
        self.has_counts = self.shares.sum(axis=1) > 0
        self._stored: list[tuple[slice, np.ndarray]] = []

    def inflation(self) -> float:
        """Return the inflation of variances by the total, n / (n - 1) for n similar features."""
        sized = self.assays >= 0
        shares = self.shares[sized].mean(axis=1)
        sums = np.bincount(self.assays[sized], weights=shares)
        squares = np.bincount(self.assays[sized], weights=np.square(shares))
        evenness = squares / np.maximum(np.square(sums), 1e-12)
        return float(1 / (1 - min(evenness.max(initial=0.0), 0.5)))

    def blocks(self, of: Residual | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield genes and their residuals, ``(n_cells, n_genes)``. Few deviances are stored."""
        if of is not None or self.counts.shape[0] * self.counts.shape[1] > _blocks.STORED_VALUES:
            yield from self._computed(of or self.usual)
            return
        self._stored = self._stored or list(self._computed(self.usual))
        yield from self._stored

    def _computed(self, of: Residual) -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, self.counts.shape[1], _blocks.DENSE_GENES):
            genes = slice(start, start + _blocks.DENSE_GENES)
            mean = self.totals[:, self.assays[genes]] * self.shares[genes].T[self.codes]
            some: Any = self.counts[:, genes]
            values = some.toarray() if sparse.issparse(some) else some
            residuals = of(values, np.maximum(mean, 1e-12))
            yield genes, residuals - self.known @ (self.known.T @ residuals)

    def noise_without(self, directions: np.ndarray, of: Residual | None = None) -> np.ndarray:
        """Return the variance of each gene outside some directions, ``(n_features,)``."""
        noise = np.empty(self.counts.shape[1])
        for genes, block in self.blocks(of):
            rest = block - directions @ (directions.T @ block)
            n_free = len(block) - self.n_known - directions.shape[1]
            noise[genes] = np.square(rest).sum(axis=0) / max(n_free, 1)
        # any scale is correct for genes without counts, whose residuals are 0
        return np.where(self.has_counts, np.maximum(noise, 1e-6), 1.0)


def _raised(values: np.ndarray) -> np.ndarray:
    """Return values above 0, because a mean of counts is positive. Differences do not change."""
    raised: np.ndarray = np.asarray(values, dtype=np.float64)
    return raised - raised.min(axis=0) + 1.0


def _difference(values: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return values - mean


def _pearson(counts: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return residuals in units of Poisson noise."""
    return (counts - mean) / np.sqrt(mean)


def _deviance(counts: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return signed roots of Poisson deviances, which have light tails for small counts."""
    deviance = 2 * (xlogy(counts, counts / mean) - (counts - mean))
    return np.sign(counts - mean) * np.sqrt(np.maximum(deviance, 0))


def _spectrum(
    residuals: _Residuals,
    noise: np.ndarray,
    k: int,
    known: np.ndarray | None = None,
    flips: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k largest variances, descending, and their directions, ``(n_cells, k)``."""
    n_cells = len(residuals.codes)
    gram = np.zeros((n_cells, n_cells))
    for genes, block in residuals.blocks():
        scaled = block / np.sqrt(noise[genes])
        # the null model: random signs of what the known directions leave
        if known is not None and flips is not None:
            scaled -= known @ (known.T @ scaled)
            scaled *= flips.choice([-1.0, 1.0], size=scaled.shape)
        gram += scaled @ scaled.T
    gram /= n_cells - 1
    if k == 1:
        start = np.random.default_rng(0).normal(size=n_cells)
        return eigsh(gram, 1, which="LA", v0=start, tol=ACCURACY)
    values, vectors = eigh(gram, subset_by_index=[n_cells - k, n_cells - 1])
    return values[::-1], vectors[:, ::-1]
