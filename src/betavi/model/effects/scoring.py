"""Scores of predictions of left-out conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm

from betavi.diagnostics.effects import inflation
from betavi.diagnostics.effects.baselines import log_profile
from betavi.diagnostics.effects.scores import perturbation_scores

if TYPE_CHECKING:
    from betavi.model.core.latent_model import LatentModel
    from betavi.model.effects.folds import Fold, Measured

OWN, NO_CHANGE, CEILING = "EffectVI", "no change", "split half"
FDR = 0.1
"""False discovery rate of the genes whose signs and recall are scored."""


class Truth(NamedTuple):
    """Measured profiles of the left-out conditions, each ``(n_folds, n_genes)``.

    ``other`` are those of the second half of the cells, and ``has_halves`` tells whether both halves have
    cells, ``(n_folds,)``.
    """

    observed: np.ndarray
    other: np.ndarray
    has_halves: np.ndarray
    control: np.ndarray
    centroid: np.ndarray
    significant: np.ndarray


def truth_of(model: LatentModel, data: Measured, folds: list[Fold], genes: np.ndarray) -> Truth:
    """Return the measured profiles that predictions are compared with."""
    sums = [data.sums.counts[fold.held_out].sum(axis=0)[genes] for fold in folds]
    halves = [[half[fold.held_out].sum(axis=0)[genes] for half in data.halves] for fold in folds]
    controls = [_control(model, data, fold.context)[genes] for fold in folds]
    spread = inflation(data.sums)[genes]
    significant = [
        significant_genes(each, base, spread) for each, base in zip(sums, controls, strict=True)
    ]
    return Truth(
        observed=log_profile(np.stack(sums)),
        other=log_profile(np.stack([second for _, second in halves])),
        has_halves=np.array([first.any() and second.any() for first, second in halves]),
        control=log_profile(np.stack(controls)),
        centroid=np.stack([_centroid(model, data, fold, genes) for fold in folds]),
        significant=np.stack(significant),
    )


def tables_of(
    truth: Truth, predictions: dict[str, list[np.ndarray]], names: list[str]
) -> dict[str, pd.DataFrame]:
    """Return a table for each method, with one row for each left-out condition."""
    tables = {}
    for name, profiles in predictions.items():
        is_ceiling = name == CEILING
        # one cell has no other half
        use = truth.has_halves if is_ceiling else np.ones(len(names), dtype=bool)
        observed = truth.other if is_ceiling else truth.observed
        predicted = np.stack(profiles)
        if use.any():
            rows = [name for name, chosen in zip(names, use, strict=True) if chosen]
            scores = perturbation_scores(
                predicted[use],
                observed[use],
                truth.control[use],
                truth.centroid[use],
                truth.significant[use],
                rows,
            )
            tables[name] = scores.reindex(names)
    if CEILING not in tables:
        tables[CEILING] = tables[OWN] * np.nan
    # the mean of both halves has half of the noise of one half, and predictions have none
    worst, best = tables[NO_CHANGE]["l2"], tables[CEILING]["l2"] / 2
    for name, table in tables.items():
        gained = (worst - table["l2"]) / (worst - best)
        table.insert(1, "share", np.nan if name == CEILING else gained)
    return tables


def means_of(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the means over the left-out conditions, one row for each method."""
    means = pd.DataFrame({name: table.mean() for name, table in tables.items()}).T
    # of the means, because single distances may be close to zero
    distances = means["l2"].to_dict()
    least, most = distances[CEILING] / 2, distances[NO_CHANGE]
    means["share"] = ((most - means["l2"]) / (most - least)).where(means.index != CEILING)
    return means[tables[OWN].columns]


def _control(model: LatentModel, data: Measured, context: int) -> np.ndarray:
    """Return the sums of counts of the controls in a context."""
    is_control = (model.conditions.parts[data.groups.codes[:, 0]] < 0).all(axis=1)
    total: np.ndarray = data.sums.counts[is_control & (data.groups.codes[:, 2] == context)].sum(
        axis=0
    )
    return total


def _centroid(model: LatentModel, data: Measured, fold: Fold, genes: np.ndarray) -> np.ndarray:
    """Return the mean log profile of the other perturbed conditions in the context."""
    codes = data.groups.codes
    other = (model.conditions.parts[codes[:, 0]] >= 0).any(axis=1) & (codes[:, 2] == fold.context)
    other &= ~fold.left_out
    if not other.any():
        return log_profile(_control(model, data, fold.context)[genes])
    profiles = [
        log_profile(data.sums.counts[other & (codes[:, 0] == code)].sum(axis=0)[genes])
        for code in np.unique(codes[other, 0])
    ]
    mean: np.ndarray = np.mean(profiles, axis=0)
    return mean


def significant_genes(counts: np.ndarray, control: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return a mask of the genes whose shares differ from the control, ``(n_genes,)``.

    ``spread`` is the variance of counts over their mean, ``(n_genes,)``.
    """
    shares = [(each + 0.5) / each.sum() for each in (counts, control)]
    error = np.sqrt(spread * (1 / (counts + 0.5) + 1 / (control + 0.5)))
    z = (np.log(shares[0]) - np.log(shares[1])) / error
    return false_discovery_control(2 * norm.sf(np.abs(z))) < FDR
