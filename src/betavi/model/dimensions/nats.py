"""Status and nats of each latent dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scvi.utils import track

from betavi.model.core.dimensions import MOST_TESTED, encode_tested, judged_dimensions
from betavi.module import Probe

if TYPE_CHECKING:
    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel

POINT_SCALE = 1e-3
"""Width of a point posterior, relative to the dimension, which the tests need. Not tuned."""


def nats_of_dimensions(
    model: LatentModel, adata: AnnOrMuData, cells: np.ndarray, show_progress: bool
) -> pd.DataFrame:
    """Return status, rate, information and distortion increase of each dimension.

    At most the first 2,000 cells are used, and 500 of these for the increase in distortion.
    """
    encoded, minibatches = encode_tested(model, adata, cells[:MOST_TESTED], model.modalities)
    is_point = model.module.latent.is_deterministic
    if is_point:
        spread = encoded["loc"].std(axis=0).clip(min=np.finfo(np.float32).tiny)
        encoded["scale"] = np.broadcast_to(POINT_SCALE * spread, encoded["loc"].shape)
    probe = Probe(model.module, minibatches)
    judged = judged_dimensions(probe, encoded, show_progress)
    table = judged[["status"]].assign(
        rate=judged["kl"],
        rate_share=judged["kl"] / judged["kl"].sum(skipna=False),
        information=judged["information"],
    )
    if is_point:
        table[["rate", "rate_share", "information"]] = np.nan
    return table.join(_distortions(probe, encoded["loc"].mean(axis=0), show_progress))


def _distortions(probe: Probe, centres: np.ndarray, show_progress: bool) -> pd.DataFrame:
    """Return the increase in distortion if each dimension is the same in all cells."""
    rows = []
    bar = track(range(len(centres)), "Fixing dimensions", disable=not show_progress)
    for dimension in bar:
        nats = probe.at_centre(dimension, centres[dimension])
        total = np.sum([*nats.values()], axis=0)
        row = {
            "distortion_increase": total.mean(),
            "distortion_increase_error": total.std(ddof=1) / np.sqrt(len(total)),
        }
        if len(nats) > 1:
            row |= {f"distortion_increase_{name}": part.mean() for name, part in nats.items()}
        rows.append(row)
    return pd.DataFrame(rows)
