"""Evaluation of predictions on conditions that were left out, beside simple baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm
from scvi.utils import track

from betavi._tables import lookup
from betavi.diagnostics.effects.baselines import log_profile
from betavi.diagnostics.effects.scores import perturbation_scores
from betavi.model.effects.baselines import BASELINES
from betavi.model.effects.contexts import in_context
from betavi.model.effects.draws import condition_draws
from betavi.model.effects.folds import SPLITS, folds_of, measured
from betavi.module.effect_fit import estimate_effects

if TYPE_CHECKING:
    from betavi.diagnostics.effects import GroupSums
    from betavi.model.core.latent_model import LatentModel
    from betavi.model.effects.folds import Fold, Measured

OWN, NO_CHANGE, CEILING = "EffectVI", "no change", "split half"
FDR = 0.1
"""False discovery rate of the genes whose signs and recall are scored."""


def evaluate(
    model: LatentModel,
    split: str = "combination",
    n_genes: int = 1000,
    level: float = 0.9,
    seed: int = 0,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Predict conditions that are left out in turn, and score them beside simple baselines."""
    lookup(SPLITS, split, "split")
    rng = np.random.default_rng(seed)
    data = measured(model, rng)
    folds = folds_of(model.conditions, data.groups, split)
    if not folds:
        raise ValueError(f"No condition can be left out with split={split!r}.")
    genes = np.argsort(-data.sums.counts.sum(axis=0))[:n_genes]
    predictions: dict[str, list[np.ndarray]] = {}
    covered = []
    for fold in track(folds, "Leaving out conditions", disable=not show_progress):
        own, inside = own_prediction(model, data, fold, genes, level, rng)
        covered.append(inside)
        found = {OWN: own}
        for name, baseline in BASELINES[split].items():
            found[name] = baseline(model.conditions, data, fold, genes)
        found[CEILING] = log_profile(data.halves[0][fold.held_out].sum(axis=0)[genes])
        for name, profile in found.items():
            predictions.setdefault(name, []).append(profile)
    return scored(model, data, folds, genes, predictions, covered)


def own_prediction(
    model: LatentModel,
    data: Measured,
    fold: Fold,
    genes: np.ndarray,
    level: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Return the expected log profile of a fold, and the share of its genes inside the interval.

    The effects are estimated again from all other cells.
    """
    kept = ~fold.held_out
    sums: GroupSums = type(data.sums)(*(part[kept] for part in data.sums))
    estimate = estimate_effects(model.module, data.groups.codes[kept], sums)
    row = estimate.design.row(fold.parts, fold.doses, fold.context)
    row, unmeasured = in_context(estimate, row, fold.parts, fold.context)
    drawn = condition_draws(estimate, row, fold.context, rng, unmeasured=unmeasured)
    shares = drawn.condition[:, genes]
    observed = data.sums.counts[fold.held_out].sum(axis=0)[genes]
    mean = observed.sum() * shares / shares.sum(axis=1, keepdims=True)
    counts = drawn_sums(mean, estimate.inflation[genes], rng)
    below = (counts < observed).mean(axis=0) + rng.random(len(genes)) * (counts == observed).mean(axis=0)
    tail = (1 - level) / 2
    inside = (below > tail) & (below < 1 - tail)
    return log_profile(counts).mean(axis=0), float(inside.mean())


def drawn_sums(mean: np.ndarray, inflation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return draws of sums of counts over many cells, with variance ``inflation * mean``."""
    shape = mean / np.maximum(inflation - 1, 1e-6)
    return rng.poisson(rng.gamma(np.maximum(shape, 1e-12)) * mean / np.maximum(shape, 1e-12))


def scored(
    model: LatentModel,
    data: Measured,
    folds: list[Fold],
    genes: np.ndarray,
    predictions: dict[str, list[np.ndarray]],
    covered: list[float],
) -> pd.DataFrame:
    """Return mean scores over the folds, one row for each method."""
    observed = np.stack([log_profile(_counts(data, fold)[genes]) for fold in folds])
    controls = [_control(model, data, fold.context)[genes] for fold in folds]
    control = log_profile(np.stack(controls))
    centroid = np.stack([_centroid(model, data, fold, genes) for fold in folds])
    significant = np.stack(
        [_significant(_counts(data, fold)[genes], base) for fold, base in zip(folds, controls, strict=True)]
    )
    # the ceiling predicts one half of the cells from the other
    other = np.stack(
        [log_profile(data.halves[1][fold.held_out].sum(axis=0)[genes]) for fold in folds]
    )
    rows: dict[str, Any] = {}
    for name, profiles in predictions.items():
        truth = other if name == CEILING else observed
        rows[name] = perturbation_scores(
            np.stack(profiles), truth, control, centroid, significant
        ).mean()
    table = pd.DataFrame(rows).T
    # the mean of both halves has half of the noise of one half, and predictions have none
    worst, best = table.loc[NO_CHANGE, "l2"], table.loc[CEILING, "l2"] / 2
    table.insert(1, "share", (worst - table["l2"]) / (worst - best))
    table.loc[CEILING, "share"] = np.nan
    table["coverage"] = np.nan
    table.loc[OWN, "coverage"] = np.mean(covered)
    return table


def _counts(data: Measured, fold: Fold) -> np.ndarray:
    total: np.ndarray = data.sums.counts[fold.held_out].sum(axis=0)
    return total


def _control(model: LatentModel, data: Measured, context: int) -> np.ndarray:
    is_control = (model.conditions.parts[data.groups.codes[:, 0]] < 0).all(axis=1)
    total: np.ndarray = data.sums.counts[is_control & (data.groups.codes[:, 2] == context)].sum(axis=0)
    return total


def _centroid(model: LatentModel, data: Measured, fold: Fold, genes: np.ndarray) -> np.ndarray:
    """Return the mean log profile of the other perturbed conditions in the context."""
    codes = data.groups.codes
    other = (model.conditions.parts[codes[:, 0]] >= 0).any(axis=1) & (codes[:, 2] == fold.context)
    other &= ~fold.held_out
    if not other.any():
        return log_profile(_control(model, data, fold.context)[genes])
    profiles = [
        log_profile(data.sums.counts[other & (codes[:, 0] == code)].sum(axis=0)[genes])
        for code in np.unique(codes[other, 0])
    ]
    mean: np.ndarray = np.mean(profiles, axis=0)
    return mean


def _significant(counts: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Return a mask of the genes whose shares differ from the control, ``(n_genes,)``."""
    shares = [(each + 0.5) / each.sum() for each in (counts, control)]
    z = (np.log(shares[0]) - np.log(shares[1])) / np.sqrt(1 / (counts + 0.5) + 1 / (control + 0.5))
    return false_discovery_control(2 * norm.sf(np.abs(z))) < FDR
