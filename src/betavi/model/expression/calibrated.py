"""Calibration of a model's intervals on held-out cells, and cells for which it does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scvi import REGISTRY_KEYS
from sklearn.neighbors import NearestNeighbors

from betavi.data import weights_digest
from betavi.diagnostics import (
    FEWEST_CALIBRATION_CELLS,
    DensityCalibration,
    IntervalCalibration,
    calibrate_intervals,
    cross_calibrated,
    is_inside,
)
from betavi.model.core.latent import get_latent_representation
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel

MOST_CALIBRATION_CELLS = 2000
"""Largest number of held-out cells that calibrate intervals, drawn from all of them. Not tuned."""

MOST_NEIGHBOURS_FROM, N_NEIGHBOURS = 5000, 10
"""Largest number of measured cells that new cells are compared with, and nearest cells of these
whose mean distance is compared. Not tuned."""

UNLIKE, MANY = 0.01, 0.1
"""Share of held-out cells that are as far from measured cells as an unlike cell, and share of unlike
cells above which a warning is given. Not tuned."""


class Prediction(NamedTuple):
    """Mean and ends of the interval of each value, ``(n_cells, n_features)``."""

    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


class Calibration(NamedTuple):
    """Calibration of the intervals of a target modality that is predicted from sources.

    ``coverage`` is the share of held-out values inside the interval, ``(n_features,)``, if each
    fifth of the held-out cells is calibrated with the others. ``batches`` are the codes of the
    batches of the held-out cells.
    """

    intervals: IntervalCalibration
    coverage: np.ndarray
    n_cells: int
    batches: np.ndarray
    measured: NearestNeighbors
    distances: DensityCalibration

    @property
    def error(self) -> np.ndarray:
        """Standard error of the coverage, from the binomial distribution, ``(n_features,)``."""
        halves: np.ndarray = np.sqrt(self.coverage * (1 - self.coverage) / self.n_cells)
        return halves

    def is_unlike(self, positions: np.ndarray) -> np.ndarray:
        """Return True for positions that are far from all cells with a measured target."""
        p_values = self.distances.p_value(-_distances(self.measured, positions))
        # with few held-out cells, a position is unlike them if it is farther than all of them
        far: np.ndarray = p_values <= max(UNLIKE, 1 / (1 + self.n_cells))
        return far


def calibration_of(
    model: LatentModel,
    sources: list[str],
    target: str,
    truth: Callable[[np.ndarray], np.ndarray],
    predict: Callable[[np.ndarray], Prediction],
    key: tuple[object, ...],
) -> Calibration | None:
    """Return the calibration on the model's held-out cells, or None with a warning.

    ``truth`` and ``predict`` return the values of cells. The calibration is stored until the model
    is trained again, with further parts of its key in ``key``.
    """
    beta = model.module.beta_condition.beta
    digest = weights_digest(model.module, beta, model.adata.n_obs, id(model.adata))

    def make() -> Calibration | None:
        cells = _held_out(model, [*sources, target])
        if len(cells) < FEWEST_CALIBRATION_CELLS:
            return None
        with model.seeded(0):
            _, lower, upper = predict(cells)
        batches, values = batch_codes(model, model.adata)[cells], truth(cells)
        inside = is_inside(values, *cross_calibrated(values, lower, upper))
        return Calibration(
            calibrate_intervals(values, lower, upper, batches), inside.mean(axis=0), len(cells),
            np.unique(batches), *_measured(model, sources, target, cells),
        )  # fmt: skip

    name = f"intervals of {target} from {', '.join(sources)}"
    found: Calibration | None = model.cached(name, (digest, *key), make)
    if found is None:
        warn(
            f"Fewer than {FEWEST_CALIBRATION_CELLS} cells with {' and '.join([*sources, target])} "
            "were held out from training, so the intervals are not calibrated. They are the model's "
            "own, and may contain fewer than 90 % of new values. Hold out more cells: "
            "train(train_size=0.8)"
        )
    return found


def check_like_measured(
    model: LatentModel,
    adata: AnnOrMuData,
    cells: np.ndarray,
    sources: list[str],
    calibration: Calibration,
) -> np.ndarray:
    """Return True for cells that are like the held-out cells. Warn if many others are not.

    A cell is unlike them if its batch has none of them, or if it is far from all cells with a
    measured target.
    """
    codes = batch_codes(model, adata)[cells]
    is_other = ~np.isin(codes, calibration.batches)
    if is_other.any():
        state = model.manager(adata).get_state_registry(REGISTRY_KEYS.BATCH_KEY)
        names = np.asarray(state["categorical_mapping"])[np.unique(codes[is_other])]
        warn(
            f"{is_other.sum()} cell(s) are in batches without a held-out cell whose target was "
            f"measured: {name_some(names)}. Their intervals are calibrated on other batches, and may "
            "contain more or less than 90 % of the values."
        )
    is_far = calibration.is_unlike(_positions(model, adata, cells, sources))
    if is_far.mean() > MANY:
        warn(
            f"{is_far.sum()} of {len(cells)} cells are unlike all cells whose target was measured: "
            f"{name_some(adata.obs_names[cells[is_far]])}. Their predictions are extrapolations, and "
            "their intervals may contain fewer than 90 % of the values."
        )
    return ~(is_other | is_far)


def batch_codes(model: LatentModel, adata: AnnOrMuData) -> np.ndarray:
    """Return the batch of each cell as a whole number, ``(n_cells,)``."""
    codes = model.manager(adata).get_from_registry(REGISTRY_KEYS.BATCH_KEY)
    return np.asarray(codes).ravel().astype(int)


def _held_out(model: LatentModel, names: list[str]) -> np.ndarray:
    """Return held-out cells that have all of the modalities."""
    held_out = getattr(model, "validation_indices", None)
    if held_out is None or getattr(model, "minified_data_type", None) is not None:
        return np.array([], dtype=int)
    cells = np.asarray(held_out)
    has = np.all([model.adapter.has(model.adata, name)[cells] for name in names], axis=0)
    chosen = np.random.default_rng(0).permutation(cells[has])[:MOST_CALIBRATION_CELLS]
    return np.sort(chosen)


def _measured(
    model: LatentModel, sources: list[str], target: str, held_out: np.ndarray
) -> tuple[NearestNeighbors, DensityCalibration]:
    """Return the positions of training cells with the target, and distances of held-out cells."""
    seen = model.seen(model.adata)
    has = [np.any([model.adapter.has(model.adata, name)[seen] for name in sources], axis=0)]
    has.append(model.adapter.has(model.adata, target)[seen])
    cells = np.random.default_rng(0).permutation(seen[np.all(has, axis=0)])[:MOST_NEIGHBOURS_FROM]
    cells = cells if len(cells) else held_out
    search = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(cells)))
    search.fit(_positions(model, model.adata, cells, sources))
    known = _positions(model, model.adata, held_out, sources)
    return search, DensityCalibration(-_distances(search, known))


def _positions(
    model: LatentModel, adata: AnnOrMuData, cells: np.ndarray, sources: list[str]
) -> np.ndarray:
    """Return the posterior means of cells, given only the sources."""
    found = get_latent_representation(model, adata, cells, modalities=sources)
    return np.asarray(found)


def _distances(search: NearestNeighbors, positions: np.ndarray) -> np.ndarray:
    """Return mean distances to the nearest measured cells, ``(n_cells,)``."""
    distances: np.ndarray = search.kneighbors(positions)[0].mean(axis=1)
    return distances
