"""Posteriors of cells, and the density of cells in the latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from betavi._blocks import ENCODED_CELLS
from betavi.data import weights_digest
from betavi.diagnostics import DensityCalibration, fit_density, on_simplex
from betavi.model.core.beta import takes_beta
from betavi.model.setup.messages import warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.diagnostics import LatentDensity
    from betavi.model.core.latent_model import LatentModel

MOST_CELLS = 20_000
"""Largest number of cells that a density is fitted to, drawn from all cells. Not tuned."""

FEWEST_DRAWS = 5000
"""Smallest number of posterior draws that a density is fitted to. Not tuned."""

MOST_KNOWN, ENOUGH_KNOWN, FEWEST_KNOWN = 2000, 100, 30
"""Held-out cells that calibrate p-values: the largest, a sufficient and the smallest number. With
fewer, training cells are used as well. ``benchmarks.support`` measures p-values with 30 cells."""

SMALLEST_TRAINING_SHARE = 0.5
"""Smallest share of training cells that a message advises."""


class Posteriors(NamedTuple):
    """Posteriors of cells, before the transform to the decoder's input.

    ``mean`` and ``variance`` are ``(n_cells, n_latent)``. ``draws`` are samples of the posteriors,
    ``(n_draws, n_cells, n_latent)``.
    """

    mean: np.ndarray
    variance: np.ndarray
    draws: np.ndarray


@torch.inference_mode()
def posteriors(
    model: LatentModel,
    adata: AnnOrMuData,
    cells: Sequence[int] | np.ndarray | None = None,
    n_draws: int = 0,
    progress: str | None = None,
) -> Posteriors:
    """Return the posteriors of cells, in the given order. Samples have a fixed seed."""
    parts: list[tuple[torch.Tensor, ...]] = []
    with model.seeded(0):
        for tensors in model.minibatches(adata, cells, ENCODED_CELLS, progress=progress):
            q = model.infer(tensors)["qz"]
            parts.append((q.mean, q.variance, q.sample((n_draws,))))
    means, variances, draws = zip(*parts, strict=True)
    joined = torch.cat(means), torch.cat(variances), torch.cat(draws, dim=1)
    return Posteriors(*(part.cpu().numpy().astype(np.float64) for part in joined))


@takes_beta
def latent_density(model: LatentModel, show_progress: bool = True) -> LatentDensity:
    """Return the density of cells in the latent space.

    The density is a mixture of normal distributions, fitted to draws from the posteriors of cells.
    The number of components is chosen by the log density of held-out cells. The fit is stored until
    the model is trained again.

    Parameters
    ----------
    show_progress
        Show a progress bar while cells are encoded.

    Returns
    -------
    A :class:`betavi.diagnostics.LatentDensity` with the methods ``log_prob``, ``slope`` and
    ``sample``. ``log_prob`` takes positions ``(n, n_latent)`` and returns nats, ``(n,)``. For a
    logistic normal z, positions are the values before the softmax.

    Raises
    ------
    ValueError
        If the model has no data, or was not trained at the requested β.

    References
    ----------
    Hoffman & Johnson (2016), ELBO surgery: yet another way to carve up the variational evidence
    lower bound.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> density = model.latent_density(show_progress=False)
    >>> density.log_prob(model.get_latent_representation()).shape
    (200,)
    """
    adata = model._validate_anndata(None)
    beta = model.module.beta_condition.beta
    key = weights_digest(model.module, beta, adata.n_obs, id(model.adata))
    return model.cached("density", key, lambda: _fitted(model, adata, show_progress))


def _fitted(model: LatentModel, adata: AnnOrMuData, show_progress: bool) -> LatentDensity:
    cells = np.random.default_rng(0).permutation(model.seen(adata))[:MOST_CELLS]
    n_draws = max(1, -(-FEWEST_DRAWS // max(1, len(cells))))
    progress = "Encoding" if show_progress else None
    draws = posteriors(model, adata, np.sort(cells), n_draws, progress).draws
    of_cells = np.tile(np.arange(len(cells)), n_draws)
    return fit_density(draws.reshape(-1, draws.shape[-1]), of_cells)


def density_calibration(model: LatentModel, show_progress: bool = False) -> DensityCalibration:
    """Return the densities at held-out cells, the null distribution of p-values."""
    density = latent_density(model, show_progress)

    def make() -> DensityCalibration:
        adata = model._validate_anndata(None)
        means = posteriors(model, adata, calibration_cells(model, density)).mean
        return DensityCalibration(density.log_prob(means))

    return model.cached("density calibration", density, make)


def calibration_cells(model: LatentModel, density: LatentDensity) -> np.ndarray:
    """Return the cells that calibrate p-values. Warn once if these are training cells."""

    def choose() -> np.ndarray:
        adata = model._validate_anndata(None)
        cells = model.held_out(adata, FEWEST_KNOWN)
        if model.has_seen(adata, cells):
            warn(
                "Too few cells were held out from training to calibrate p-values, so training "
                "cells are used as well. The p-values of cells that the model has not seen are "
                f"therefore too small. {_advice(adata.n_obs)}"
            )
        return np.sort(np.random.default_rng(0).permutation(cells)[:MOST_KNOWN])

    return model.cached("calibration cells", density, choose)


def _advice(n_cells: int) -> str:
    """Return advice on how many of ``n_cells`` cells to hold out."""
    size = np.floor(100 * (1 - ENOUGH_KNOWN / n_cells)) / 100
    if size < SMALLEST_TRAINING_SHARE:
        return (
            f"{ENOUGH_KNOWN} held-out cells are enough, but this object has only {n_cells} cells."
        )
    return f"Hold out {ENOUGH_KNOWN} cells: train(train_size={size:.2g})"


def checked_positions(model: LatentModel, latent: Any) -> np.ndarray:
    """Return latent positions as a finite array, ``(n, n_latent)``, or raise a ValueError."""
    try:
        positions = np.atleast_2d(np.asarray(latent, dtype=np.float64))
    except (TypeError, ValueError):
        raise ValueError(f"Latent positions must be numbers, not {latent!r}.") from None
    n_latent = model.module.options.n_latent
    if positions.ndim != 2 or positions.shape[1] != n_latent:
        raise ValueError(
            f"Latent positions must have the shape (n, {n_latent}), not {np.shape(latent)}. "
            "get_latent_representation() returns such positions."
        )
    if model.module.latent.is_on_simplex and on_simplex(positions):
        raise ValueError(
            "Each row of the latent positions sums to 1, so these are positions after the softmax "
            "of a logistic normal z. Pass the positions before the softmax: "
            "get_latent_representation(return_dist=True)[0]"
        )
    if not np.isfinite(positions).all():
        row = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        raise ValueError(f"Latent position {row} must be finite, not {positions[row].tolist()}.")
    return positions


def decoder_input(model: LatentModel, positions: np.ndarray) -> torch.Tensor:
    """Return z at positions ``(..., n_latent)``, on the model's device."""
    u = torch.as_tensor(positions, dtype=torch.float32, device=model.device)
    return model.module.latent.transform(u)
