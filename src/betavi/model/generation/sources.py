"""Sources of latent positions, and nearest cells, whose covariates generated cells take."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

from betavi.model.core.density import MOST_CELLS, latent_density, posteriors

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from betavi.model.core.latent_model import LatentModel, Tensors
    from betavi.model.generation.request import GenerationRequest

    Sampler = Callable[[slice], "SampledPositions"]
    Source = Callable[[LatentModel, GenerationRequest], Sampler]

N_NEIGHBOURS = 15
"""Number of nearest measured cells from which one cell is chosen at random; not tuned."""


class SampledPositions(NamedTuple):
    """Latent positions before the decoder's transform, ``(n_cells, n_latent)``, with near cells.

    Generated cells take covariates, labels and sizes from the near cells, ``(n_cells,)``.
    ``tensors`` is the minibatch of the near cells.
    """

    positions: np.ndarray
    near: np.ndarray
    tensors: Tensors


def _from_prior(model: LatentModel, request: GenerationRequest) -> Sampler:
    if model.module.latent.is_deterministic:
        raise ValueError(
            "A deterministic autoencoder was not trained towards a prior. Generate from the "
            "density of the cells: source='aggregate'"
        )
    with_near_cells = near_cell_sampler(model, request)
    prior = model.module.current_prior
    return lambda block: with_near_cells(_numpy(prior().sample((block.stop - block.start,))))


def _from_aggregate(model: LatentModel, request: GenerationRequest) -> Sampler:
    """Draw from the density fitted to the positions of cells."""
    with_near_cells = near_cell_sampler(model, request)
    density = latent_density(model, request.show_progress)
    return lambda block: with_near_cells(density.sample(block.stop - block.start, request.rng))


def _around_cells(model: LatentModel, request: GenerationRequest) -> Sampler:
    """Draw from the posteriors of measured cells. Named cells are used equally often."""
    if request.cells_are_named:
        cells = np.resize(request.cells, request.n_cells)
    else:
        cells = request.rng.choice(request.cells, request.n_cells)

    def sample(block: slice) -> SampledPositions:
        tensors = _minibatch(model, cells[block])
        return SampledPositions(_numpy(model.infer(tensors)["qz"].sample()), cells[block], tensors)

    return sample


def at_positions(model: LatentModel, request: GenerationRequest) -> Sampler:
    """Use the positions of the request in turn."""
    assert request.latent is not None
    positions = request.latent[np.resize(np.arange(len(request.latent)), request.n_cells)]
    with_near_cells = near_cell_sampler(model, request)
    return lambda block: with_near_cells(positions[block])


SOURCES: dict[str, Source] = {
    "prior": _from_prior,
    "aggregate": _from_aggregate,
    "cells": _around_cells,
}
"""Sources of positions, by name.

Each takes the model and the request, and returns a function that samples the positions of a slice
of the generated cells. Slices must be sampled in order.
"""


def near_cell_sampler(
    model: LatentModel, request: GenerationRequest
) -> Callable[[np.ndarray], SampledPositions]:
    """Return a function that draws one of the nearest measured cells for each position."""
    if request.cells_are_named:
        raise ValueError(
            "`cells` can be used only with source='cells', but the source is "
            f"{request.name!r}. Pass source='cells', or leave `cells` out."
        )
    cells = np.sort(request.rng.permutation(request.cells)[:MOST_CELLS])
    means = posteriors(model, model.adata, cells).mean
    index = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(cells))).fit(means)

    def with_near_cells(positions: np.ndarray) -> SampledPositions:
        neighbours = index.kneighbors(positions, return_distance=False)
        drawn = request.rng.integers(neighbours.shape[1], size=len(neighbours))
        near = cells[neighbours[np.arange(len(neighbours)), drawn]]
        return SampledPositions(positions, near, _minibatch(model, near))

    return with_near_cells


def _minibatch(model: LatentModel, cells: np.ndarray) -> Tensors:
    """Return the tensors of some cells, in order."""
    return next(model.minibatches(model.adata, cells, len(cells)))


def _numpy(values: Tensor) -> np.ndarray:
    return values.cpu().numpy().astype(np.float64)
