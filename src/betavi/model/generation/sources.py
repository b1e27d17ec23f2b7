"""Sources of the positions of new cells, and the near cells that these take covariates from."""

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

    Place = Callable[[slice], "Placed"]
    Source = Callable[[LatentModel, GenerationRequest], Place]

N_NEIGHBOURS = 15
"""Number of nearest measured cells of a position, one of which is drawn; not tuned."""


class Placed(NamedTuple):
    """Some new cells, not yet decoded.

    Parameters
    ----------
    positions
        Latent positions before the transform to what the decoder reads, ``(n_cells, n_latent)``.
    near
        Near cells, from which the new ones take covariates, labels and sizes, ``(n_cells,)``.
    tensors
        Minibatch of the near cells.
    """

    positions: np.ndarray
    near: np.ndarray
    tensors: Tensors


def _from_prior(model: LatentModel, request: GenerationRequest) -> Place:
    """Draw from the prior; refuse an autoencoder, which has none."""
    if model.module.latent.is_deterministic:
        raise ValueError(
            "A deterministic autoencoder was not trained towards any prior. Generate from where "
            "its cells are: source='aggregate'."
        )
    beside = beside_near_cells(model, request)
    prior = model.module.current_prior
    return lambda block: beside(_numpy(prior().sample((block.stop - block.start,))))


def _from_aggregate(model: LatentModel, request: GenerationRequest) -> Place:
    """Draw from the density fitted to the positions of cells."""
    beside = beside_near_cells(model, request)
    density = latent_density(model, request.show_progress)
    return lambda block: beside(density.sample(block.stop - block.start, request.rng))


def _around_cells(model: LatentModel, request: GenerationRequest) -> Place:
    """Draw from the posteriors of measured cells; of named ones, each as often as the others."""
    if request.cells_are_named:
        cells = np.resize(request.cells, request.n_cells)
    else:
        cells = request.rng.choice(request.cells, request.n_cells)

    def place(block: slice) -> Placed:
        tensors = _minibatch(model, cells[block])
        return Placed(_numpy(model.infer(tensors)["qz"].sample()), cells[block], tensors)

    return place


def at_positions(model: LatentModel, request: GenerationRequest) -> Place:
    """Take the positions of the request in turn."""
    assert request.latent is not None
    positions = request.latent[np.resize(np.arange(len(request.latent)), request.n_cells)]
    beside = beside_near_cells(model, request)
    return lambda block: beside(positions[block])


SOURCES: dict[str, Source] = {
    "prior": _from_prior,
    "aggregate": _from_aggregate,
    "cells": _around_cells,
}
"""Sources of positions, by name.

Each is a function of the model and the request. It returns a function that places the cells of a slice
of the request; slices come in order.
"""


def beside_near_cells(
    model: LatentModel, request: GenerationRequest
) -> Callable[[np.ndarray], Placed]:
    """Return a function that draws one of the nearest measured cells for each position."""
    if request.cells_are_named:
        raise ValueError(f"cells= are generated around with source='cells', not {request.name!r}.")
    cells = np.sort(request.rng.permutation(request.cells)[:MOST_CELLS])
    means = posteriors(model, model.adata, cells).mean
    index = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(cells))).fit(means)

    def beside(positions: np.ndarray) -> Placed:
        found = index.kneighbors(positions, return_distance=False)
        pick = request.rng.integers(found.shape[1], size=len(found))
        near = cells[found[np.arange(len(found)), pick]]
        return Placed(positions, near, _minibatch(model, near))

    return beside


def _minibatch(model: LatentModel, cells: np.ndarray) -> Tensors:
    """Return the tensors of some cells, in order."""
    return next(model.minibatches(model.adata, cells, len(cells)))


def _numpy(values: Tensor) -> np.ndarray:
    return values.cpu().numpy().astype(np.float64)
