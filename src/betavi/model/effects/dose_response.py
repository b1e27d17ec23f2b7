"""Dose curves of perturbations: half-effective doses with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.model.core.latent_model import LatentModel

LARGEST_RATIO = 10.0
"""Largest ratio of the ends of an interval for which the half-effective dose counts as determined."""


def dose_response(
    model: LatentModel, perturbation: str | Sequence[str] | None = None, level: float = 0.9
) -> pd.DataFrame:
    """Return the half-effective dose of perturbations, with intervals."""
    model._check_if_trained()
    estimate, conditions = model.module.stored_estimate(), model.conditions
    if estimate.curves is None:
        raise ValueError("The model has no doses. Pass `dose_key` to setup_anndata.")
    names = conditions.perturbations if perturbation is None else np.atleast_1d(perturbation)
    codes = np.concatenate([conditions.codes_of(str(name)) for name in names])
    log_ec50, slope = estimate.curves.means()
    tail = (1 - level) / 2
    lower, upper = (np.exp(estimate.curves.quantile(share)) for share in (tail, 1 - tail))
    doses = estimate.design.measured_doses.numpy()
    table = pd.DataFrame(
        {"ec50": np.exp(log_ec50), "lower": lower, "upper": upper, "slope": slope},
        index=list(conditions.perturbations),
    ).iloc[codes]
    is_narrow = table["upper"] < LARGEST_RATIO * table["lower"]
    inside = (table["ec50"] >= doses.min()) & (table["ec50"] <= doses.max())
    return table.assign(is_determined=is_narrow & inside)
