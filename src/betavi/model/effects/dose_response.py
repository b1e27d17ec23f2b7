"""Dose curves of perturbations: half-effective doses with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from betavi.model.effects.draws import check_level
from betavi.model.effects.request import names_listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.model.core.latent_model import LatentModel

LARGEST_RATIO = 10.0
"""Largest ratio of the ends of an interval for which the half-effective dose counts as determined."""


def dose_response(
    model: LatentModel, perturbation: str | Sequence[str] | None = None, level: float = 0.9
) -> pd.DataFrame:
    """Return the half-effective dose of perturbations, with intervals.

    The curve of a perturbation is a Hill curve that all of its effects follow. It is estimated from
    cells that have this perturbation alone.

    Parameters
    ----------
    perturbation
        Name of a perturbation, or several names. If None, all perturbations.
    level
        Level of the intervals.

    Returns
    -------
    Table with one row for each perturbation. ``ec50`` is the half-effective dose, in the unit of
    ``dose_key``, and ``lower`` and ``upper`` are the ends of its interval. ``slope`` is the Hill slope.
    ``is_determined`` is True if ``ec50`` is a measured dose or between measured doses, and ``upper`` is
    less than ten times ``lower``.

    Raises
    ------
    KeyError
        If a perturbation is unknown.
    ValueError
        If the model has no doses, or ``level`` is out of range.

    References
    ----------
    Hill (1910), The possible effects of the aggregation of the molecules of haemoglobin on its
    dissociation curves. Ritz et al. (2015), Dose-response analysis using R.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_perturbations(
    ...     n_cells=600, n_perturbations=2, doses=(0.1, 1, 10)
    ... )
    >>> betavi.EffectVI.setup_anndata(adata, perturbation_key="perturbation", dose_key="dose")
    >>> model = betavi.EffectVI(adata)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.dose_response("P0").columns.tolist()
    ['ec50', 'lower', 'upper', 'slope', 'is_determined']
    """
    model._check_if_trained(warn=False)
    check_level(level)
    estimate, conditions = model.module.stored_estimate(), model.conditions
    if estimate.curves is None:
        raise ValueError("The model has no doses. Pass `dose_key` to setup_anndata.")
    names = conditions.perturbations if perturbation is None else names_listed(perturbation)
    codes = np.concatenate([conditions.codes_of(name) for name in names])
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
