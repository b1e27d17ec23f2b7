"""Density of cells in the latent space, fitted to draws of their posteriors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture

from betavi import _blocks

COMPONENTS = (1, 2, 4, 8, 16, 32, 64)  # numbers of components to try
PATIENCE = 2  # worse fits in a row that end the search: a ring needs more than 2 components
ROWS_PER_COMPONENT = 5  # least number of draws per component and dimension
HELD_OUT_SHARE = 0.2
FLOOR = 1e-4  # least variance of a component, relative to the variance of all draws


@dataclass(frozen=True, eq=False)
class LatentDensity:
    r"""Mixture of normal distributions, :math:`\sum_k w_k N(z; \mu_k, \Sigma_k)`.

    Parameters
    ----------
    weights
        Weight of each component, ``(n_components,)``.
    means
        Mean of each component, ``(n_components, n_latent)``.
    covariances
        Covariance of each component, ``(n_components, n_latent, n_latent)``.
    held_out
        Mean log density of draws from held-out cells, nats.

    Examples
    --------
    >>> density = LatentDensity(np.ones(1), np.zeros((1, 2)), np.eye(2)[None], held_out=-2.8)
    >>> density.log_prob(np.zeros((1, 2))).round(3)
    array([-1.838])
    >>> density
    LatentDensity(1 components, 2 dimensions, held_out=-2.80 nats)
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    held_out: float

    def __repr__(self) -> str:
        n, d = self.means.shape
        return f"LatentDensity({n} components, {d} dimensions, held_out={self.held_out:.2f} nats)"

    @property
    def n_latent(self) -> int:
        """Number of dimensions."""
        return int(self.means.shape[1])

    @cached_property
    def _roots(self) -> np.ndarray:
        return np.linalg.cholesky(self.covariances)

    @cached_property
    def _whitening(self) -> np.ndarray:
        return np.linalg.inv(self._roots)

    def _components(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the log density of each weighted component, and the whitened offsets."""
        offsets = np.asarray(positions, dtype=np.float64)[:, None] - self.means
        white = (self._whitening @ offsets.transpose(1, 2, 0)).transpose(2, 0, 1)
        log_volume = np.log(np.diagonal(self._roots, axis1=1, axis2=2)).sum(axis=1)
        constant = np.log(self.weights) - log_volume - 0.5 * self.n_latent * np.log(2 * np.pi)
        return constant - 0.5 * np.square(white).sum(axis=2), white

    def log_prob(self, positions: np.ndarray) -> np.ndarray:
        """Return the log density, nats, ``(n,)``, at positions ``(n, n_latent)``."""
        n_parts = max(1, -(-len(positions) // _blocks.DENSITY_POSITIONS))
        parts = np.array_split(np.asarray(positions), n_parts)
        return np.concatenate([logsumexp(self._components(part)[0], axis=1) for part in parts])

    @property
    def variance(self) -> np.ndarray:
        """Variance of each dimension, within and between components, ``(n_latent,)``."""
        within = self.weights @ np.diagonal(self.covariances, axis1=1, axis2=2)
        return within + self.weights @ np.square(self.means - self.weights @ self.means)

    def log_prob_and_slope(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the log density, nats, ``(n,)``, and its gradient, ``(n, n_latent)``."""
        logs, white = self._components(positions)
        log_prob = logsumexp(logs, axis=1)
        shares = np.exp(logs - log_prob[:, None])
        pulls = (shares[..., None] * white).transpose(1, 0, 2) @ self._whitening
        return log_prob, -pulls.sum(axis=0)

    def slope(self, positions: np.ndarray) -> np.ndarray:
        """Return the gradient of the log density at positions, both ``(n, n_latent)``."""
        return self.log_prob_and_slope(positions)[1]

    def sample(self, n_draws: int, rng: np.random.Generator) -> np.ndarray:
        """Return positions drawn from the density, ``(n_draws, n_latent)``."""
        chosen = rng.choice(len(self.weights), size=n_draws, p=self.weights)
        noise = rng.standard_normal((n_draws, self.n_latent))
        return self.means[chosen] + (self._roots[chosen] @ noise[..., None])[..., 0]

    def projected(self, centre: np.ndarray, axes: np.ndarray) -> LatentDensity:
        """Return the exact density of ``(z - centre) @ axes``, with axes ``(n_latent, n_axes)``."""
        means, covariances = (self.means - centre) @ axes, axes.T @ self.covariances @ axes
        return LatentDensity(self.weights, means, covariances, self.held_out)


def fit_density(draws: np.ndarray, cells: np.ndarray | None = None, seed: int = 0) -> LatentDensity:
    """Fit the density of the aggregate posterior to draws from the posteriors of cells.

    The number of components is chosen by the log density of held-out cells. See Hoffman & Johnson
    (2016), ELBO surgery, for the aggregate posterior.

    Parameters
    ----------
    draws
        Latent positions drawn from the posteriors, ``(n_draws, n_latent)``.
    cells
        Cell of each draw, ``(n_draws,)``. A held-out cell is held out with all its draws. If None,
        each draw is a cell.
    seed
        Seed of the choice of held-out cells, and of the fit.

    Returns
    -------
    A mixture of normal distributions in ``n_latent`` dimensions.

    Raises
    ------
    ValueError
        If there are fewer than three cells, or a draw is not finite.

    Examples
    --------
    >>> density = fit_density(np.random.default_rng(0).normal(size=(500, 2)))
    >>> density.log_prob(np.zeros((1, 2))).round(0)
    array([-2.])
    """
    draws = np.asarray(draws, dtype=np.float64)
    cells = np.arange(len(draws)) if cells is None else np.asarray(cells)
    names = np.unique(cells)
    if len(names) < 3:
        raise ValueError(f"`draws` has only {len(names)} cell(s), but at least 3 are needed.")
    finite = np.isfinite(draws).all(axis=1)
    if not finite.all():
        row = int(finite.argmin())
        raise ValueError(f"`draws` must be finite, but row {row} is {draws[row].tolist()}.")
    rng = np.random.default_rng(seed)
    n_left_out = max(1, int(HELD_OUT_SHARE * len(names)))
    is_left_out = np.isin(cells, rng.permutation(names)[:n_left_out])
    shift, scale = draws.mean(axis=0), draws.std(axis=0)
    scale[scale == 0] = 1.0
    white = (draws - shift) / scale
    best: tuple[float, Any] = (-np.inf, None)
    n_worse = 0
    most = max(1, (~is_left_out).sum() // (ROWS_PER_COMPONENT * draws.shape[1]))
    for n_components in (n for n in COMPONENTS if n <= most):
        # the default, k-means, takes much longer and the fits are similar
        mixture = GaussianMixture(
            n_components, reg_covar=FLOOR, random_state=seed, init_params="k-means++"
        ).fit(white[~is_left_out])
        score = float(mixture.score(white[is_left_out]))
        if score > best[0]:
            best, n_worse = (score, mixture), 0
        elif (n_worse := n_worse + 1) == PATIENCE:
            break
    score, mixture = best
    means, covariances = mixture.means_ * scale + shift, mixture.covariances_
    covariances = covariances * np.outer(scale, scale)
    return LatentDensity(mixture.weights_, means, covariances, score - float(np.log(scale).sum()))


def on_simplex(positions: np.ndarray) -> bool:
    """Test if positions are on the simplex, such as a logistic normal z after its softmax.

    Parameters
    ----------
    positions
        Latent positions, ``(n, n_latent)``.

    Returns
    -------
    True if all values are at least 0 and each row sums to 1, within 0.001.

    Examples
    --------
    >>> on_simplex(np.array([[0.2, 0.8]])), on_simplex(np.array([[-0.2, 1.2]]))
    (True, False)
    """
    return bool((positions >= 0).all() and np.allclose(positions.sum(axis=1), 1, atol=1e-3))
