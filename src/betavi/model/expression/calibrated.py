"""Calibration of a model's intervals on held-out cells, and cells for which it does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scvi import REGISTRY_KEYS
from sklearn.neighbors import NearestNeighbors

from betavi.data import weights_digest
from betavi.diagnostics import (
    FEWEST_CALIBRATION_CELLS,
    DensityCalibration,
    IntervalCalibration,
    binomial_error,
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

MOST_CALIBRATION_CELLS, MOST_VALUES = 2000, 2**23
"""Largest number of held-out cells that calibrate intervals, and of their values of all features:
64 MiB in double precision. Not tuned."""

MOST_NEIGHBOURS_FROM, N_NEIGHBOURS = 5000, 10
"""Largest number of measured cells that new cells are compared with, and nearest cells of these
whose mean distance is compared. Not tuned."""

FEWEST_OF_BATCH = 10
"""Smallest number of held-out cells of a batch whose intervals count as calibrated. Not tuned."""

UNLIKE, SURE = 0.01, 0.99
"""Share of held-out cells that are as far from measured cells as an unlike cell, and probability of
fewer unlike cells than those that a warning needs, if all are like the held-out cells. Not tuned."""


class Prediction(NamedTuple):
    """Mean and ends of the interval of each value, ``(n_cells, n_features)``."""

    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


class Calibration(NamedTuple):
    """Calibration of the intervals of a target modality that is predicted from sources.

    ``coverage`` is the share of held-out values inside the interval, ``(n_features,)``, if each
    fifth of the held-out cells is calibrated with the others. ``batches`` are the codes of batches
    with at least 10 held-out cells. ``of_batches`` has the number of held-out cells and the mean
    coverage of each batch.
    """

    intervals: IntervalCalibration
    coverage: np.ndarray
    n_cells: int
    batches: np.ndarray
    of_batches: pd.DataFrame
    measured: NearestNeighbors
    distances: DensityCalibration

    @property
    def error(self) -> np.ndarray:
        """Standard error of the coverage, from the binomial distribution, ``(n_features,)``."""
        return binomial_error(self.coverage, self.n_cells)

    def is_unlike(self, positions: np.ndarray) -> np.ndarray:
        """Return True for positions that are far from all cells with a measured target."""
        p_values = self.distances.p_value(-_distances(self.measured, positions))
        far: np.ndarray = p_values <= self._n_far / (1 + self.n_cells)
        return far

    @property
    def _n_far(self) -> int:
        # with few held-out cells, a position is unlike them if it is farther than all of them
        return max(1, int(UNLIKE * (1 + self.n_cells)))

    def are_many(self, n_unlike: int, n_cells: int) -> bool:
        """Return True if cells like the held-out cells would hardly have so many unlike cells."""
        others = 1 + self.n_cells - self._n_far
        return n_unlike > float(stats.betabinom(n_cells, self._n_far, others).ppf(SURE))


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
        batches, values = cell_batches(model, model.adata)[cells], truth(cells)
        inside = is_inside(values, *cross_calibrated(values, lower, upper, batches))
        of_batches = pd.DataFrame({"batch": batches, "coverage": inside.mean(axis=1)})
        of_batches = of_batches.groupby("batch")["coverage"].agg(["size", "mean"])
        enough = of_batches.index[of_batches["size"] >= FEWEST_OF_BATCH].to_numpy()
        of_batches.index = pd.Index(batch_names(model)[of_batches.index], name="batch")
        of_batches.columns = ["held_out_cells", "coverage"]
        return Calibration(
            calibrate_intervals(values, lower, upper, batches), inside.mean(axis=0), len(cells),
            enough, of_batches, *_measured(model, sources, target, cells),
        )  # fmt: skip

    name = f"intervals of {target} from {', '.join(sources)}"
    found: Calibration | None = model.cached(name, (digest, *key), make)
    if found is None:
        warn(
            f"Fewer than {FEWEST_CALIBRATION_CELLS} cells with {' and '.join([*sources, target])} "
            "are known as held out from training, so the intervals are not calibrated. They are the "
            f"model's own, and may contain fewer than 90 % of new values. {_remedy(model)}"
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

    A cell is unlike them if its batch has fewer than 10 of them, or if it is far from all cells with a
    measured target.
    """
    codes = cell_batches(model, adata)[cells]
    is_other = ~np.isin(codes, calibration.batches)
    if is_other.any():
        warn(
            f"{is_other.sum()} cell(s) are in batches with fewer than {FEWEST_OF_BATCH} "
            "held-out cells whose target was measured: "
            f"{name_some(batch_names(model)[np.unique(codes[is_other])])}. Their intervals are "
            "calibrated on other batches, and may contain more or less than 90 % of the values."
        )
    is_far = calibration.is_unlike(_positions(model, adata, cells, sources))
    if calibration.are_many(int(is_far.sum()), len(cells)):
        warn(
            f"{is_far.sum()} of {len(cells)} cells are unlike all cells whose target was measured: "
            f"{name_some(adata.obs_names[cells[is_far]])}. Their predictions are extrapolations, and "
            "their intervals may contain fewer than 90 % of the values."
        )
    return ~(is_other | is_far)


def cell_batches(model: LatentModel, adata: AnnOrMuData) -> np.ndarray:
    """Return the batch of each cell as a whole number, ``(n_cells,)``."""
    codes = model.manager(adata).get_from_registry(REGISTRY_KEYS.BATCH_KEY)
    return np.asarray(codes).ravel().astype(int)


def batch_names(model: LatentModel) -> np.ndarray:
    """Return the names of batches, by code."""
    state = model.registry_["field_registries"][REGISTRY_KEYS.BATCH_KEY]["state_registry"]
    return np.asarray(state["categorical_mapping"])


def held_out_cells(model: LatentModel) -> np.ndarray:
    """Return the cells of the model's object that are known as held out from training."""
    held_out = getattr(model, "validation_indices", None)
    is_minified = getattr(model, "minified_data_type", None) is not None
    if held_out is None or is_minified or not model.was_split(model.adata):
        return np.array([], dtype=int)
    return np.asarray(held_out)


def _remedy(model: LatentModel) -> str:
    if getattr(model, "minified_data_type", None) is not None:
        return "Load the model with the original object: load(..., adata=...)"
    if getattr(model, "validation_indices", None) is not None and not model.was_split(model.adata):
        return "Load the model with the object that it was trained on: load(..., adata=...)"
    return "Hold out more cells: train(train_size=0.8)"


def _held_out(model: LatentModel, names: list[str]) -> np.ndarray:
    """Return held-out cells that have all of the modalities."""
    cells = held_out_cells(model)
    has = np.all([model.adapter.has(model.adata, name)[cells] for name in names], axis=0)
    most = min(MOST_CALIBRATION_CELLS, MOST_VALUES // len(model.features(names[-1])))
    return np.sort(np.random.default_rng(0).permutation(cells[has])[:most])


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
