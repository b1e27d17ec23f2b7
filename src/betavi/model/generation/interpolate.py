"""Paths between cells, and the cell at the centre of the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import cdist
from scvi import REGISTRY_KEYS

from betavi._tables import check_whole, lookup
from betavi.diagnostics import along_density, genes_on_path, straight
from betavi.model.core.beta import takes_beta
from betavi.model.core.density import checked_positions
from betavi.model.generation.decoded_points import (
    ROWS_AT_ONCE,
    decode_options,
    decode_points,
    mean_profile,
    points_as_cells,
)
from betavi.model.generation.latent_reference import latent_reference, positions_table
from betavi.model.generation.request import cells_of_batch
from betavi.model.setup.messages import warn
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scvi._types import AnnOrMuData

    from betavi.diagnostics import LatentDensity
    from betavi.model.core.latent_model import LatentModel
    from betavi.model.generation.latent_reference import LatentReference

    Path = Callable[[np.ndarray, np.ndarray, int, LatentDensity, np.ndarray], np.ndarray]


def _straight(
    start: np.ndarray, end: np.ndarray, n_steps: int, _density: LatentDensity, _nodes: np.ndarray
) -> np.ndarray:
    return straight(start, end, n_steps)


PATHS: dict[str, Path] = {"straight": _straight, "density": along_density}
"""Paths from one position to another, by name.

Each is a function of start, end, number of steps, density and positions of cells; it returns
positions, ``(n_steps, n_latent)``.
"""

MOST_NODES = 3000
"""Cells that a path may lead through; of more, these are drawn. A bound on time, not tuned."""

MOST_COMPARED = 1000
"""Cells that the distances of a medoid are summed over; a bound on time, not tuned."""


@takes_beta
def interpolate(
    model: LatentModel,
    start: Any,
    end: Any,
    n_steps: int = 32,
    path: str = "straight",
    batch: str | int | None = None,
    library_size: float | Mapping[str, float] | None = None,
    show_progress: bool = True,
) -> AnnOrMuData:
    """Walk from one state to another, and decode each step.

    Parameters
    ----------
    start, end
        A cell, by name or position; several cells, by names, positions or a mask, of which the medoid
        is taken; or a latent position, ``(n_latent,)`` of floating-point numbers.
    n_steps
        Number of steps, both ends included, evenly spaced in the latent space.
    path
        ``"straight"``, or ``"density"``: the shortest path if a length costs more where fewer cells
        are, which avoids holes.
    batch
        Batch to decode in; if None, the average over all batches. Differences between batches then
        do not change along the path: do not register a condition that you study as a batch.
    library_size
        Expected total, of a joint model by modality; the median of the cells if None.
    show_progress
        Show progress bars.

    Returns
    -------
    Object with a row per step, in every modality. ``X`` has expected expression,
    ``layers["std"]`` its standard deviation within the posterior of a cell at this position. ``obs``
    has ``step``, the share of the path; ``log_density`` and ``p_value`` as of :meth:`support`;
    ``nearest_cell`` with its ``distance``; and ``uncertainty``, the mean standard deviation of log
    expression, or of the probability of detection. ``var`` has what each gene does, see
    :func:`betavi.diagnostics.genes_on_path`. ``obsm["z"]`` has the positions, of a logistic normal
    those before the softmax. A deterministic autoencoder has no uncertainty: ``std`` is 0.

    Raises
    ------
    ValueError
        If the path, batch, number of steps or size are invalid, or both ends are the same position.
    KeyError, IndexError
        If a cell does not exist.

    References
    ----------
    Bijral, Ratliff & Srebro (2011), Semi-supervised learning with density based distances.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> ends = adata.obs_names[:2]
    >>> steps = model.interpolate(*ends, n_steps=5, show_progress=False)
    >>> steps.shape, steps.obs["step"].tolist()
    ((5, 20), [0.0, 0.25, 0.5, 0.75, 1.0])
    """
    walk = lookup(PATHS, path, "path")
    check_whole("n_steps", n_steps)
    if n_steps < 2:
        raise ValueError("n_steps=1: a path has two ends at least.")
    options = decode_options(model, batch, library_size)
    reference = latent_reference(model, show_progress)
    groups = [_cells_at(reference, end, word) for end, word in ((start, "start"), (end, "end"))]
    first, last = (
        checked_positions(model, end)[0] if cells is None else _medoid(reference.mean[cells])
        for end, cells in zip((start, end), groups, strict=True)
    )
    if np.allclose(first, last):
        raise ValueError("start and end are the same place: there is no way between them.")
    if batch is None:
        _warn_of_batches(model, *groups)
    some = np.random.default_rng(0).permutation(len(reference.mean))[:MOST_NODES]
    points = walk(first, last, n_steps, reference.density, reference.mean[some])
    decoded = decode_points(model, reference, points, options, show_progress)
    obs = positions_table(reference, points, [f"step_{number}" for number in range(n_steps)])
    obs.insert(0, "step", np.linspace(0, 1, n_steps))
    var = {
        name: genes_on_path(part.mean, part.std, pd.Index(model.features(name)))
        for name, part in decoded.items()
    }
    return points_as_cells(model, obs, points, decoded, var, {"path": path})


@takes_beta
def archetype(
    model: LatentModel,
    batch: str | int | None = None,
    library_size: float | Mapping[str, float] | None = None,
    show_progress: bool = True,
) -> AnnOrMuData:
    """Return the cell at the centre of the prior, with the mean and the medoid of the cells.

    The archetype is decoded from the prior's mean, the position that the rate pulls every cell to.
    It need not be like any cell: see its ``p_value``. The mean is that of counts per total, a
    mixture of all types; that of detection for chromatin, that of counts for proteins. The medoid is
    the measured cell nearest to the others, decoded.

    Parameters
    ----------
    batch
        Batch to decode in; if None, the average over all batches. Mean and medoid are of its cells.
    library_size
        Expected total, of a joint model by modality; the median of the cells if None.
    show_progress
        Show progress bars.

    Returns
    -------
    Object with three rows, ``archetype``, ``mean`` and ``medoid``, and the columns of
    :meth:`interpolate`. The position of the mean is that of the cells' mean position.

    Raises
    ------
    ValueError
        If the batch or the size is invalid, the object is minified and has no counts, or the model
        is a deterministic autoencoder.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.archetype(show_progress=False).obs_names.tolist()
    ['archetype', 'mean', 'medoid']
    """
    model.refuse_minified("archetype")
    if model.module.latent.is_deterministic:
        raise ValueError(
            "A deterministic autoencoder was not trained towards any prior, so that the centre of "
            "one says nothing. The medoid is what is left: interpolate() takes that of a group."
        )
    options = decode_options(model, batch, library_size)
    reference = latent_reference(model, show_progress)
    cells = cells_of_batch(model, batch)
    with torch.inference_mode():
        centre = model.module.current_prior().mean.cpu().numpy().astype(np.float64)
    mean = reference.mean[cells]
    points = np.vstack([centre, mean.mean(axis=0), _medoid(mean)])
    decoded = decode_points(model, reference, points, options, show_progress)
    for name, part in decoded.items():
        part.mean[1] = mean_profile(model, name, cells, part.mean[0].sum())
        part.std[1] = np.nan
    obs = positions_table(reference, points, ["archetype", "mean", "medoid"])
    return points_as_cells(model, obs, points, decoded)


def _cells_at(reference: LatentReference, end: Any, word: str) -> np.ndarray | None:
    """Return the cells of an end, or None if it is a position."""
    values = np.asarray(end)
    if values.dtype.kind != "f":
        return cells_named(reference.names, end, word)
    if values.ndim > 1 and len(values) > 1:
        raise ValueError(f"{word} is one position, not {len(values)}; or names of cells.")
    return None


def _medoid(positions: np.ndarray) -> np.ndarray:
    """Return the position nearest to the others; to some of them, drawn, if they are many."""
    some = positions[np.random.default_rng(0).permutation(len(positions))[:MOST_COMPARED]]
    parts = np.array_split(positions, max(1, len(positions) // ROWS_AT_ONCE))
    distance = np.concatenate([cdist(part, some).sum(axis=1) for part in parts])
    medoid: np.ndarray = positions[distance.argmin()]
    return medoid


def _warn_of_batches(model: LatentModel, start: np.ndarray | None, end: np.ndarray | None) -> None:
    """Warn if two groups of cells have no batch in common, as expression is averaged over batches."""
    if start is None or end is None or min(len(start), len(end)) < 2:
        return
    batch = model.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
    if not np.intersect1d(batch[start], batch[end]).size:
        warn(
            "No batch has cells of both ends, and expression is averaged over batches: what "
            "differs between these batches does not change on the way. If that is what you "
            "study, train without it as batch_key; batch=... decodes as in one of them."
        )
