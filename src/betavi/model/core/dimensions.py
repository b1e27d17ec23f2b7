"""Tests of latent dimensions on cells, for the diagnosis of collapse and for explanations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scvi.utils import track

from betavi import _blocks
from betavi.diagnostics import DimensionArrays, judge_dimensions
from betavi.module import Probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel, Tensors

MOST_TESTED = 2000
"""Largest number of cells to encode: the spectrum's time grows with its square. Not tuned."""

PROBED_CELLS = 500
"""Largest number of cells for the removal of dimensions. A bound on time, not tuned."""

FEWEST_TESTED = 20
"""Smallest number of cells of a test. No benchmark tunes it."""


def encode_tested(
    model: LatentModel, adata: AnnOrMuData, cells: np.ndarray, modalities: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[Tensors]]:
    """Return the posteriors of cells, see :meth:`betavi.module.Probe.posteriors`, and minibatches.

    The minibatches hold the first 500 cells. All other modalities are masked.
    """
    parts: list[dict[str, np.ndarray]] = []
    first: list[Tensors] = []
    size = _blocks.DIAGNOSED_CELLS
    for tensors in model.minibatches(adata, cells, size, modalities):
        parts.append(Probe(model.module, [tensors]).posteriors())
        if len(first) * size < PROBED_CELLS:
            first.append(tensors)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, first


def judged_dimensions(
    probe: Probe, encoded: dict[str, np.ndarray], show_progress: bool
) -> pd.DataFrame:
    """Remove the dimensions one by one, and judge each."""
    loc, scale, rates = (encoded[key] for key in ("loc", "scale", "rates"))
    centres = loc.mean(axis=0)
    bar = track(range(len(centres)), "Removing dimensions", disable=not show_progress)
    removed = [probe.without(dimension, centres[dimension]) for dimension in bar]
    losses, halves = (np.stack([part[key] for part in removed], -1) for key in ("loss", "halves"))
    mean_rates = rates.mean(axis=0) if rates.shape == loc.shape else np.full(len(centres), np.nan)
    log_totals = probe.log_totals()
    arrays = DimensionArrays(loc, scale, mean_rates, losses, halves, log_totals)
    return judge_dimensions(arrays)
