"""Translation between modalities, with predictive intervals."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi.utils import unsupported_if_adata_minified

from betavi import _blocks
from betavi._tables import lookup
from betavi.diagnostics import INTERVAL, cross_calibrated, score_translation
from betavi.model.core.beta import takes_beta
from betavi.model.core.library_size import drawn_log_sizes
from betavi.model.expression.calibrated import (
    Prediction,
    calibration_of,
    cell_batches,
    check_like_measured,
    held_out_cells,
)
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mudata import MuData
    from torch import Tensor

    from betavi.data import AlignedRows, Rows
    from betavi.model.core.latent_model import LatentModel

FEWEST_DRAWS = 19
"""Number of samples whose smallest and largest value are the ends of a 90 % interval."""

FEWEST_CELLS, STANDARD_ERRORS = 24, 2.0
"""Smallest number of scored cells, and margin by which a predictable feature is better."""

SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "counts": lambda x: x,
    # a normal likelihood can draw negative values
    "log1p": lambda x: x.clamp_min(0).log1p(),
}
"""Transforms of the predicted counts, by ``scale``."""


@takes_beta
@torch.inference_mode()
def translate(
    model: LatentModel,
    source: Sequence[str] | str,
    target: str,
    adata: MuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 25,
    scale: str = "counts",
    batch_size: int | None = None,
    show_progress: bool = True,
    calibrate: bool = True,
) -> AnnData:
    """Predict the counts of one modality from other modalities, with intervals.

    Positions z are drawn from the posterior given only the source. If the target has a library
    size, it is drawn given z. Counts are then drawn from the decoded likelihood. Intervals
    therefore include the uncertainty of the position and of the count. They are then calibrated on
    the cells that were held out from training and have both source and target: each feature's
    interval is made wider or narrower, until it contains 90 % of the held-out values. Batches with
    at least 50 of these cells are calibrated on their own cells.

    Parameters
    ----------
    source
        One modality or several modalities. Cells that have none of these modalities are left out.
    target
        Modality to predict. Its measured values are not used.
    adata, indices, batch_size
        See :meth:`get_latent_representation`.
    n_samples
        Number of samples per cell, at least 19.
    scale
        ``"counts"``, or ``"log1p"`` for mean and interval of log(1 + counts).
    show_progress
        Show a progress bar.
    calibrate
        Calibrate the intervals. If False, they are those of the model.

    Returns
    -------
    Cells by target features. ``X`` is the mean, and ``layers["lower"]`` and ``layers["upper"]`` are
    the ends of a 90 % predictive interval. ``var["coverage"]`` is the share of held-out values
    inside calibrated intervals, and ``var["coverage_error"]`` its standard error.
    ``obs["is_calibrated"]`` is False for cells that are unlike the held-out cells: their batch has
    fewer than 10 of these, or they are far from all cells whose target was measured. A warning tells how
    many there are. ``uns["coverage_by_batch"]`` has the number of held-out cells and the mean
    coverage of each batch. With fewer than 24 held-out cells, intervals are not calibrated, also with a
    warning. With the likelihood ``"bernoulli"``, mean and interval are for the probability of
    detection, and are not calibrated. If the target has images, the mean image is in ``obsm``, with
    the key of the target's images. The ends of the interval of each pixel are ``obsm["lower"]`` and
    ``obsm["upper"]``, and the coverage of each pixel is in ``uns``.

    Raises
    ------
    ValueError
        If a modality is unknown, the target is also a source, no cell has a source, or
        ``n_samples`` is smaller than 19, or ``scale`` is ``"log1p"`` and the target has images.

    References
    ----------
    Romano et al. (2019), Conformalized quantile regression.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, missing={"adt": 0.5})
    >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    >>> model = betavi.JointVI(mdata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> proteins = model.translate("rna", "adt", show_progress=False)
    >>> proteins.shape, bool((proteins.layers["lower"] <= proteins.layers["upper"]).all())
    ((100, 15), True)
    """
    sources, (target,) = model.named_modalities(source), model.named_modalities(target)
    if target in sources:
        raise ValueError(
            f"The modality {target!r} is both source and target. Remove it from `source`."
        )
    if n_samples < FEWEST_DRAWS:
        raise ValueError(
            f"`n_samples` is {n_samples}. A 90 % interval needs at least {FEWEST_DRAWS} samples."
        )
    lookup(SCALES, scale, "scale")
    if scale != "counts" and model.likelihood(target).of_images:
        raise ValueError(
            f"scale={scale!r} is for counts, but the modality {target!r} has images. Leave `scale` out."
        )
    adata = model._validate_anndata(adata)
    cells = _cells_with(model, adata, sources, indices)
    how = _How(sources, target, n_samples, scale, batch_size)
    progress = "Translating" if show_progress else None
    found = predicted(model, adata, cells, how, progress)
    var, layers = pd.DataFrame(index=model.features(target)), found._asdict()
    result = AnnData(layers.pop("mean"), obs=adata.obs.iloc[cells].copy(), var=var, layers=layers)
    if calibrate and not model.likelihood(target).is_of_detection:
        _calibrate(model, adata, cells, how, result)
    return _in_obsm(model, target, result) if model.likelihood(target).of_images else result


def _in_obsm(model: LatentModel, target: str, flat: AnnData) -> AnnData:
    """Return translated images in their shape, in ``obsm``."""
    # from anndata 0.13, the layer None is X
    layers = {key: values for key, values in flat.layers.items() if key is not None}
    found = model.as_images(target, flat.obs, images=flat.X, **layers)
    found.uns = flat.uns
    shape = model.image_format(target).shape  # type: ignore[union-attr]  # the target has images
    found.uns |= {column: flat.var[column].to_numpy().reshape(shape) for column in flat.var}
    return found


class _How(NamedTuple):
    """Sources and target of a translation, and options."""

    sources: list[str]
    target: str
    n_samples: int
    scale: str
    batch_size: int | None = None


@torch.inference_mode()
def predicted(
    model: LatentModel, adata: MuData, cells: np.ndarray, how: _How, progress: str | None = None
) -> Prediction:
    """Return the mean of the target and the model's own interval."""
    transform = SCALES[how.scale]
    levels, parts = _levels(how.n_samples), []
    for tensors in model.minibatches(adata, cells, how.batch_size, how.sources, progress):
        z = model.infer(tensors, how.n_samples)["z"]
        sizes = drawn_log_sizes(model, z, tensors, how.target)
        px: Any = model.decode(z, tensors, how.target, sizes)
        if model.likelihood(how.target).is_of_detection:
            draws = expected = px.mean * transform(torch.ones(()))
        else:
            draws = transform(px.sample())
            # the decoded mean has less noise than the mean of draws
            expected = px.mean if how.scale == "counts" else draws
        lower, upper = _quantiles(draws, levels)
        parts.append(tuple(part.cpu().numpy() for part in (expected.mean(dim=0), lower, upper)))
    return Prediction(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _quantiles(draws: Tensor, levels: Tensor) -> Tensor:
    """Return quantiles over samples. PyTorch's function takes 16 million values at most."""
    parts = draws.split(_blocks.DENSE_GENES, dim=-1)
    return torch.cat([part.quantile(levels.to(part), dim=0) for part in parts], dim=-1)


def _calibrate(
    model: LatentModel, adata: MuData, cells: np.ndarray, how: _How, result: AnnData
) -> None:
    """Calibrate the intervals of a translation, and describe the calibration in it."""
    transform, rows = SCALES[how.scale], model.rows

    def truth(some: np.ndarray) -> np.ndarray:
        values = torch.as_tensor(rows(model.adata, how.target).dense(some, np.float64))
        return transform(values).numpy()

    def predict(some: np.ndarray) -> Prediction:
        return predicted(model, model.adata, some, how)

    key = how.n_samples, how.scale
    calibration = calibration_of(model, how.sources, how.target, truth, predict, key)
    if calibration is None:
        result.obs["is_calibrated"] = False
        return
    result.var["coverage"], result.var["coverage_error"] = calibration.coverage, calibration.error
    result.uns["coverage_by_batch"] = calibration.of_batches
    is_like = check_like_measured(model, adata, cells, how.sources, calibration)
    result.obs["is_calibrated"] = is_like
    ends = result.layers["lower"], result.layers["upper"]
    lower, upper = calibration.intervals.extended(*ends, cell_batches(model, adata)[cells])
    # counts are not negative
    lower = np.maximum(lower, 0) if (ends[0] >= 0).all() else lower
    result.layers["lower"], result.layers["upper"] = (
        end.astype(np.float32) for end in (lower, upper)
    )


@takes_beta
@unsupported_if_adata_minified
def predictability(
    model: LatentModel,
    source: Sequence[str] | str,
    target: str,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 25,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Measure how well each feature of a modality can be predicted from other modalities.

    Parameters
    ----------
    source, target, n_samples, show_progress
        See :meth:`translate`.
    indices
        Cells to score. If None, the cells held out from training. Cells that lack ``source`` or
        ``target`` are left out.

    Returns
    -------
    One row per feature, with the scores of :func:`betavi.diagnostics.score_translation` on log(1 +
    counts), or of the pixels of images. With the likelihood ``"bernoulli"``, coverage and width are NaN. ``is_predictable``
    compares the squared error with a baseline, the mean of the feature over all other cells. It is
    True if the squared error is smaller than the error of the baseline by two standard errors of
    the paired difference.

    Raises
    ------
    ValueError
        If fewer than 24 cells have both modalities, or the object is minified.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.simulate_multiome(n_cells=300)
    >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    >>> model = betavi.JointVI(mdata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> table = model.predictability("rna", "adt", show_progress=False)
    >>> table.shape, table["is_predictable"].dtype
    ((15, 7), dtype('bool'))
    """
    sources, (target,) = model.named_modalities(source), model.named_modalities(target)
    named = model.adata.obs_names
    cells = held_out_cells(model) if indices is None else cells_named(named, indices, "indices")
    rows = model.rows(model.adata, target)
    cells = cells[rows.present[cells]] if len(cells) else cells
    cells = _cells_with(model, model.adata, sources, cells) if len(cells) else cells
    if len(cells) < FEWEST_CELLS:
        chosen = "held-out cells" if indices is None else "cells in `indices`"
        raise ValueError(
            f"Only {len(cells)} of the {chosen} have the modalities {source!r} and {target!r}, but "
            f"at least {FEWEST_CELLS} are needed. Pass more cells as `indices`. Or, hold out more "
            "cells: train(train_size=0.8)"
        )
    is_image = model.likelihood(target).of_images
    how = _How(sources, target, n_samples, "counts" if is_image else "log1p")
    found = predicted(model, model.adata, cells, how, "Translating" if show_progress else None)
    others = np.setdiff1d(np.flatnonzero(rows.present), cells)
    detects = model.likelihood(target).is_of_detection
    read = partial(_raw_values, rows) if is_image else partial(_log_values, rows, detects=detects)
    truth = read(cells)
    blocks = np.array_split(others, max(1, len(others) // _blocks.TRANSLATED_CELLS))
    sums = [read(block).sum(axis=0) for block in blocks]
    mean = np.sum(sums, axis=0) / len(others)
    # each fifth of the cells is calibrated with the others, as new cells would be
    batches = cell_batches(model, model.adata)[cells]
    interval = cross_calibrated(truth, found.lower, found.upper, batches)
    table = score_translation(found.mean, truth, *interval)
    if detects:
        table[["coverage", "coverage_error", "width"]] = np.nan
    gain = np.square(truth - mean) - np.square(truth - found.mean)
    error = gain.std(axis=0) / np.sqrt(len(gain))
    table["is_predictable"] = gain.mean(axis=0) > STANDARD_ERRORS * error
    return table.set_index(model.features(target))


def _cells_with(model: LatentModel, adata: MuData, names: list[str], indices: Any) -> np.ndarray:
    """Return the positions of the cells that have any of the named modalities."""
    chosen = np.arange(adata.n_obs) if indices is None else np.asarray(indices)
    has = np.any([model.adapter.has(adata, name) for name in names], axis=0)
    cells: np.ndarray = chosen[has[chosen]]
    if not len(cells):
        source = " or ".join(map(repr, names))
        raise ValueError(
            f"No cell has the modality {source}. Choose other cells or another `source`."
        )
    return cells


def _raw_values(rows: Rows | AlignedRows, cells: np.ndarray) -> np.ndarray:
    return rows.dense(cells, np.float64)


def _log_values(rows: Rows | AlignedRows, cells: np.ndarray, detects: bool) -> np.ndarray:
    """Return log(1 + counts), or log(1 + detection) with detection 0 or 1."""
    values = rows.dense(cells, np.float64)
    return np.log1p((values > 0).astype(np.float64) if detects else values)


def _levels(n_samples: int) -> Tensor:
    """Return quantiles of ``n_samples`` samples, between which 90 % of new samples are.

    The 5 % and 95 % quantiles would cover less: with 25 samples, 83 % of new samples.
    """
    tail = (1 - INTERVAL) / 2
    level = max(0.0, ((n_samples + 1) * tail - 1) / (n_samples - 1))
    return torch.tensor([level, 1 - level])
