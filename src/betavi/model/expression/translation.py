"""Translation of one modality into another, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi.utils import unsupported_if_adata_minified

from betavi._blocks import TRANSLATED_CELLS
from betavi._tables import lookup
from betavi.diagnostics import score_translation
from betavi.model.core.beta import takes_beta
from betavi.model.core.library_size import drawn_log_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mudata import MuData
    from torch import Tensor

    from betavi.data import AlignedRows, Rows
    from betavi.model.core.latent_model import LatentModel

INTERVAL = 0.9
"""Probability of the interval between lower and upper."""

FEWEST_DRAWS = 19
"""Number of draws whose smallest and largest are the ends of a 90 % interval."""

FEWEST_JUDGED, SURE = 20, 2.0

SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "counts": lambda x: x,
    # a normal likelihood draws values below 0, even of data without any
    "log1p": lambda x: x.clamp_min(0).log1p(),
}
"""Transforms of a translation's counts, by the user's word."""


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
) -> AnnData:
    """Predict the measurements of an assay from others, with an interval.

    Positions are drawn from the posterior given the source alone, and counts from the decoded
    likelihood of each. The interval has both uncertainties.

    Parameters
    ----------
    source
        One modality or several. Cells without any of them are left out.
    target
        The modality to predict; measured values of it are ignored.
    adata, indices, batch_size
        Cells, and how many at once.
    n_samples
        Number of draws of each cell.
    scale
        ``"counts"``, or ``"log1p"`` for the mean and the interval of log(1 + counts).
    show_progress
        Show a bar.

    Returns
    -------
    Cells by features of the target: the mean in ``X``, and the ends of a 90 % predictive interval
    in ``layers["lower"]`` and ``layers["upper"]``. The target's library size is drawn given z, if
    it has one. With ``"bernoulli"``, mean and interval are those of the probability of detection.

    Raises
    ------
    ValueError
        If a modality is unknown, source and target overlap, or there are fewer than 19 draws.

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
        raise ValueError(f"{target!r} is both source and target. Leave it out of the source.")
    if n_samples < FEWEST_DRAWS:
        raise ValueError(
            f"A 90 % interval takes at least {FEWEST_DRAWS} draws: n_samples={n_samples}."
        )
    transform = lookup(SCALES, scale, "scale")
    adata = model._validate_anndata(adata)
    cells = _cells_with(model, adata, sources, indices)
    parts: list[tuple[np.ndarray, ...]] = []
    progress = "Translating" if show_progress else None
    model.module.eval()
    for tensors in model.minibatches(adata, cells, batch_size, sources, progress):
        z = model.infer(tensors, n_samples)["z"]
        px: Any = model.decode(z, tensors, target, drawn_log_sizes(model, z, tensors, target))
        if model.likelihood(target).is_of_detection:
            draws = expected = px.mean * transform(torch.ones(()))
        else:
            draws = transform(px.sample())
            # draws of counts would add noise to their mean
            expected = px.mean if scale == "counts" else draws
        lower, upper = draws.quantile(_levels(n_samples).to(draws), dim=0)
        parts.append(tuple(part.cpu().numpy() for part in (expected.mean(dim=0), lower, upper)))
    mean, lower, upper = (np.concatenate(values) for values in zip(*parts, strict=True))
    return AnnData(
        mean,
        obs=adata.obs.iloc[cells],
        var=pd.DataFrame(index=model.features(target)),
        layers={"lower": lower, "upper": upper},
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
    """Measure how well each feature of an assay can be predicted from others.

    Parameters
    ----------
    source, target, n_samples, show_progress
        See :meth:`translate`.
    indices
        Cells that have both; of those held out in training if None.

    Returns
    -------
    See :func:`betavi.diagnostics.score_translation`, of log(1 + counts), without coverage with the
    likelihood ``"bernoulli"``; and ``is_predictable``: the error is smaller than that of the
    feature's mean over all other cells, by two standard errors of the paired difference.

    Raises
    ------
    ValueError
        If fewer than 20 cells have both.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.simulate_multiome(n_cells=300)
    >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    >>> model = betavi.JointVI(mdata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> table = model.predictability("rna", "adt", show_progress=False)
    >>> table.shape, table["is_predictable"].dtype
    ((15, 6), dtype('bool'))
    """
    sources, (target,) = model.named_modalities(source), model.named_modalities(target)
    held_out = getattr(model, "validation_indices", None)
    chosen = np.array([], int) if held_out is None else held_out
    cells = chosen if indices is None else np.asarray(indices)
    rows = model.rows(model.adata, target)
    cells = cells[rows.present[cells]] if len(cells) else cells
    found = _cells_with(model, model.adata, sources, cells) if len(cells) else cells
    if len(found) < FEWEST_JUDGED:
        raise ValueError(
            f"{len(found)} of the cells held out have {source!r} and {target!r}: predictability "
            f"takes at least {FEWEST_JUDGED}. Train with train_size=0.9, or name cells, indices=."
        )
    guess = translate(
        model, source, target, indices=found, n_samples=n_samples, scale="log1p",
        show_progress=show_progress,
    )  # fmt: skip
    seen = np.setdiff1d(np.flatnonzero(rows.present), found)
    detects = model.likelihood(target).is_of_detection
    truth = _log_values(rows, found, detects)
    sums = [_log_values(rows, part, detects).sum(axis=0) for part in _blocks(seen)]
    mean = np.sum(sums, axis=0) / len(seen)
    table = score_translation(guess.X, truth, guess.layers["lower"], guess.layers["upper"])
    if detects:
        table[["coverage", "width"]] = np.nan
    gain = np.square(truth - mean) - np.square(truth - guess.X)
    error = gain.std(axis=0) / np.sqrt(len(gain))
    table["is_predictable"] = gain.mean(axis=0) > SURE * error
    return table.set_index(guess.var_names)


def _cells_with(
    model: LatentModel,
    adata: MuData,
    modalities: Sequence[str],
    indices: Sequence[int] | np.ndarray | None,
) -> np.ndarray:
    """Return the cells with any of some modalities."""
    chosen = np.arange(adata.n_obs) if indices is None else np.asarray(indices)
    has = np.any([model.adapter.has(adata, name) for name in modalities], axis=0)
    cells = chosen[has[chosen]]
    if not len(cells):
        raise ValueError(f"None of the cells has {' or '.join(map(repr, modalities))}.")
    return cells


def _log_values(rows: Rows | AlignedRows, cells: np.ndarray, detects: bool) -> np.ndarray:
    """Return log(1 + counts), or the same of detection, 0 or 1."""
    values = rows.dense(cells, np.float64)
    return np.log1p((values > 0).astype(np.float64) if detects else values)


def _blocks(cells: np.ndarray) -> list[np.ndarray]:
    return np.array_split(cells, max(1, len(cells) // TRANSLATED_CELLS))


def _levels(n_samples: int) -> Tensor:
    """Return the levels of quantiles of ``n_samples`` draws that cover 90 % of further draws.

    The quantiles at 5 and 95 % cover too few: with 25 draws, 83 % of further ones.
    """
    tail = (1 - INTERVAL) / 2
    level = max(0.0, ((n_samples + 1) * tail - 1) / (n_samples - 1))
    return torch.tensor([level, 1 - level])
