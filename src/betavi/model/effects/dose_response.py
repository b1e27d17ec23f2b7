"""Dose curves of perturbations: half-effective doses with intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from betavi.data import COUNTS
from betavi.model.effects.draws import check_level, condition_draws, condition_in
from betavi.model.effects.predict import intervals
from betavi.model.effects.request import names_listed
from betavi.model.setup.selection import features_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.model.core.latent_model import LatentModel
    from betavi.module.effect_fit import EffectEstimate

LARGEST_RATIO = 10.0
"""Largest ratio of the ends of an interval for which the half-effective dose counts as determined."""


def dose_response(
    model: LatentModel,
    perturbation: str | Sequence[str] | None = None,
    genes: str | Sequence[str] | None = None,
    level: float = 0.9,
) -> pd.DataFrame:
    """Return the half-effective dose of perturbations, or their full effects on genes, with intervals.

    The curve of a perturbation is a Hill curve that all of its effects follow. It is estimated from
    cells that have this perturbation alone.

    Parameters
    ----------
    perturbation
        Name of a perturbation, or several names. If None, all perturbations.
    genes
        Name of a gene, or several names. If given, the result has their full effects.
    level
        Level of the intervals.

    Returns
    -------
    Table with one row for each perturbation. ``ec50`` is the half-effective dose, in the unit of
    ``dose_key``, and ``lower`` and ``upper`` are the ends of its interval. ``slope`` is the Hill slope.
    ``is_determined`` is True if ``ec50`` is within the measured doses of this perturbation, and
    ``upper`` is less than ten times ``lower``.

    With ``genes``, one row for each perturbation, context and gene. ``lfc`` is the log2 fold change
    that the curve approaches at high doses, and ``lower`` and ``upper`` are the ends of its interval.
    ``ec50`` is that of the perturbation.

    Raises
    ------
    KeyError
        If a perturbation or a gene is unknown.
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
    >>> model.dose_response("P0", genes=["gene_0", "gene_1"]).columns.tolist()
    ['perturbation', 'gene', 'lfc', 'lower', 'upper', 'ec50']
    """
    model._check_if_trained(warn=False)
    check_level(level)
    estimate, conditions = model.module.stored_estimate(), model.conditions
    if estimate.curves is None:
        raise ValueError("The model has no doses. Pass `dose_key` to setup_anndata.")
    names = conditions.perturbations if perturbation is None else names_listed(perturbation)
    codes = np.concatenate([conditions.codes_of(name) for name in names])
    if genes is not None:
        return full_effects(model, estimate, codes, genes_named(model, genes), level)
    log_ec50, slope = estimate.curves.means()
    tail = (1 - level) / 2
    lower, upper = (np.exp(estimate.curves.quantile(share)) for share in (tail, 1 - tail))
    table = pd.DataFrame(
        {"ec50": np.exp(log_ec50), "lower": lower, "upper": upper, "slope": slope},
        index=list(conditions.perturbations),
    ).iloc[codes]
    doses = [estimate.doses_of(int(code), alone=True) for code in codes]
    inside = np.array(
        [
            len(each) > 1 and each[0] <= ec50 <= each[-1]
            for each, ec50 in zip(doses, table["ec50"], strict=True)
        ]
    )
    return table.assign(is_determined=inside & (table["upper"] < LARGEST_RATIO * table["lower"]))


def genes_named(model: LatentModel, genes: str | Sequence[str]) -> list[int]:
    """Return the positions of genes. Raise an error without any, or for unknown names."""
    if not isinstance(genes, Iterable):
        raise TypeError(f"`genes` must be a name or a list of names, not {genes!r}.")
    names = [genes] if isinstance(genes, str) else list(genes)
    if not names:
        raise ValueError("`genes` is empty. Name at least one gene.")
    return features_named(model.features(COUNTS), names, "`genes`: the model").tolist()


def full_effects(
    model: LatentModel, estimate: EffectEstimate, codes: np.ndarray, genes: list[int], level: float
) -> pd.DataFrame:
    """Return the changes of genes that the curves of perturbations approach, one row for each."""
    conditions, rows = model.conditions, []
    assert estimate.curves is not None
    ec50, names = np.exp(estimate.curves.means()[0]), np.asarray(model.features(COUNTS))[genes]
    for code in codes:
        for context, of_context in enumerate(conditions.contexts):
            condition = condition_in(estimate, [int(code)], [np.inf], context)
            drawn = condition_draws(estimate, condition, np.random.default_rng(0))
            found = intervals(drawn, level)
            table = {"perturbation": conditions.perturbations[code], "gene": names}
            table |= {"context": of_context} if len(conditions.contexts) > 1 else {}
            table |= {
                column: found[name][genes]
                for column, name in {
                    "lfc": "lfc",
                    "lower": "lfc_lower",
                    "upper": "lfc_upper",
                }.items()
            }
            rows.append(pd.DataFrame(table).assign(ec50=ec50[code]))
    return pd.concat(rows, ignore_index=True)
