"""Decoded paths between cells, and the decoded centre of the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import cdist
from scvi import REGISTRY_KEYS

from betavi import _blocks
from betavi._tables import check_whole, lookup
from betavi.diagnostics import along_density, genes_on_path, straight
from betavi.model.core.beta import takes_beta
from betavi.model.core.density import checked_positions
from betavi.model.generation.decoded_points import (
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


PATHS: dict[str, Path] = {
    "straight": lambda start, end, n_steps, *_: straight(start, end, n_steps),
    "density": along_density,
}
"""Functions that return a path, ``(n_steps, n_latent)``, by name.

Each takes the start, the end, the number of steps, the density, and the positions of cells.
"""

MOST_NODES = 3000
"""Largest number of cells that a path may visit, drawn from all. A bound on time, not tuned."""

MOST_COMPARED = 1000
"""Largest number of cells to which a medoid's distances are computed. A bound on time, not
tuned."""


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
    """Decode the steps of a path between two cells, groups of cells, or positions.

    Parameters
    ----------
    start, end
        One cell, by name or number. Or several cells, by names, numbers or a mask: the path then
        starts or ends at their medoid, the cell that is nearest to the others. Or a latent
        position, ``(n_latent,)``, of floating-point numbers.
    n_steps
        Number of steps, including both ends, evenly spaced in the latent space.
    path
        ``"straight"`` for a straight line. ``"density"`` for the shortest path when a step through
        a region with few cells counts as longer.
    batch
        Batch to decode in. If None, the average over all batches: the effect of the batch is then
        the same along the path. To study a condition, do not register this condition as the batch.
    library_size
        Expected total count. For a joint model, a dictionary by modality. If None, the median of
        the cells.
    show_progress
        Show progress bars.

    Returns
    -------
    Object with one row per step. ``X`` has the expected expression. ``layers["std"]`` has its
    standard deviation, from the uncertainty of the position of a cell. For a deterministic
    autoencoder, the standard deviation is 0. ``obs`` has ``step``, the share of the path;
    ``log_density`` and ``p_value``, see :meth:`support`; ``nearest_cell`` and its ``distance``; and
    ``uncertainty``, the mean standard deviation of log expression, or of the probability of
    detection. ``var`` has the changes of each gene, see :func:`betavi.diagnostics.genes_on_path`.
    ``obsm["z"]`` has the positions. For a logistic normal z, these are positions before the
    softmax.

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
    path_between = lookup(PATHS, path, "path")
    check_whole("n_steps", n_steps)
    if n_steps < 2:
        raise ValueError("`n_steps` must be at least 2, not 1: a path includes both ends.")
    options = decode_options(model, batch, library_size)
    reference = latent_reference(model, show_progress)
    groups = [_cells_at(reference, end, word) for end, word in ((start, "start"), (end, "end"))]
    first, last = (
        checked_positions(model, end)[0] if cells is None else _medoid(reference.mean[cells])
        for end, cells in zip((start, end), groups, strict=True)
    )
    if np.allclose(first, last):
        raise ValueError("`start` and `end` are the same position. Choose two different positions.")
    if batch is None:
        _check_batches(model, *groups)
    nodes = np.random.default_rng(0).permutation(len(reference.mean))[:MOST_NODES]
    points = path_between(first, last, n_steps, reference.density, reference.mean[nodes])
    decoded = decode_points(model, reference, points, options, show_progress)
    obs = positions_table(reference, points, [f"step_{number}" for number in range(n_steps)])
    obs.insert(0, "step", np.linspace(0, 1, n_steps))
    var = {
        name: genes_on_path(part.mean, part.std, pd.Index(model.features(name)))
        for name, part in decoded.items()
        if not model.likelihood(name).of_images
    }
    return points_as_cells(model, obs, points, decoded, var, {"path": path})


@takes_beta
def archetype(
    model: LatentModel,
    batch: str | int | None = None,
    library_size: float | Mapping[str, float] | None = None,
    show_progress: bool = True,
) -> AnnOrMuData:
    """Decode the centre of the prior, beside the mean and the medoid of the cells.

    The archetype is decoded from the mean of the prior, the position to which the rate (KL) pulls
    every cell. The archetype may be unlike any cell: see its ``p_value``. The row ``mean`` is the
    mean of the measured cells, which mixes all types: of counts per total for RNA, of detection for
    chromatin, and of counts for proteins. The medoid is the decoded position of the cell that is
    nearest to the others.

    Parameters
    ----------
    batch
        Batch to decode in. The mean and the medoid are those of the cells of this batch. If None,
        the average over batches.
    library_size
        Expected total count. For a joint model, a dictionary by modality. If None, the median of
        the cells.
    show_progress
        Show progress bars.

    Returns
    -------
    Object with three rows, ``archetype``, ``mean`` and ``medoid``, and the columns of
    :meth:`interpolate`. The position of ``mean`` is the mean position of the cells.

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
            "A deterministic autoencoder was not trained towards a prior, so the centre of the "
            "prior is meaningless. Use a medoid instead: interpolate() starts from the medoid of a "
            "group."
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
    """Return the cells of an end of the path, or None if the end is a position."""
    values = np.asarray(end)
    if values.dtype.kind != "f":
        return cells_named(reference.names, end, word)
    if values.ndim > 1 and len(values) > 1:
        raise ValueError(
            f"`{word}` is an array of {len(values)} latent positions. Pass one latent position, or "
            "select cells by names, whole numbers or a mask."
        )
    return None


def _medoid(positions: np.ndarray) -> np.ndarray:
    """Return the position nearest to the others. Of many positions, a random sample is compared."""
    some = positions[np.random.default_rng(0).permutation(len(positions))[:MOST_COMPARED]]
    parts = np.array_split(positions, max(1, len(positions) // _blocks.PROFILED_CELLS))
    distance = np.concatenate([cdist(part, some).sum(axis=1) for part in parts])
    return positions[distance.argmin()]


def _check_batches(model: LatentModel, start: np.ndarray | None, end: np.ndarray | None) -> None:
    """Warn if two groups of cells have no batch in common."""
    if start is None or end is None or min(len(start), len(end)) < 2:
        return
    batch = model.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
    if not np.intersect1d(batch[start], batch[end]).size:
        warn(
            "No batch has cells of both ends. Expression is averaged over batches, so differences "
            "between these batches do not change along the path. To study these differences, "
            "train a new model without this `batch_key`. To decode in one batch, pass batch=..."
        )
