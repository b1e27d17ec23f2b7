"""Evaluation of predictions on conditions that were left out, beside simple baselines."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scvi.utils import track

from betavi._tables import check_flag, check_whole, lookup
from betavi.diagnostics.effects.baselines import log_profile
from betavi.model.effects.baselines import baselines_of
from betavi.model.effects.draws import check_level, condition_draws, condition_in
from betavi.model.effects.folds import SPLITS, folds_of, measured
from betavi.model.effects.scoring import CEILING, OWN, means_of, tables_of, truth_of
from betavi.model.setup.arguments import check_arguments
from betavi.module.effect_fit import estimate_effects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from betavi.diagnostics.effects import GroupSums
    from betavi.model.core.latent_model import LatentModel
    from betavi.model.effects.folds import Fold, Measured
    from betavi.module.effect_fit import EffectEstimate


def evaluate(
    model: LatentModel,
    split: str = "combination",
    n_genes: int = 1000,
    level: float = 0.9,
    by_condition: bool = False,
    seed: int = 0,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Predict conditions that are left out in turn, and score the predictions beside baselines.

    No cell of the left-out condition is used: the effects are estimated again from all other cells.
    The networks are not trained again, because mean profiles do not depend on them. A profile is
    log(1 + counts per ten thousand) of the sum of a condition's cells. EffectVI predicts its expectation
    at the depth of the left-out cells.

    Parameters
    ----------
    split
        Conditions to leave out: ``"combination"``, each combination whose perturbations were measured
        alone, at all doses, in all contexts, and in larger combinations; ``"context"``, each condition in one context, at all
        doses, if it was measured in another; or ``"dose"``, each dose of a perturbation that was
        measured at other doses. Contexts without control cells are not scored.
    n_genes
        Number of genes with most counts, which the scores use.
    level
        Level of the intervals.
    by_condition
        Return one row for each condition and method, not means over conditions.
    seed
        Seed of the draws and of the split into halves.
    show_progress
        Show a progress bar.

    Returns
    -------
    One row for EffectVI and for each baseline, with the scores of
    :func:`betavi.metrics.perturbation_scores`, and

    - ``share``, the share of the distance between no change and a perfect prediction that is gained;
    - ``coverage``, the share of the left-out sums of counts inside the interval.

    Baselines of combinations: no change; the mean of all perturbed conditions; the mean of conditions
    that share a perturbation; the sum of the changes by single perturbations; the same with shrunken
    changes; the better single perturbation, chosen with the left-out cells; the measured condition
    nearest to the sum; and a linear model. With doses, these use the same dose of each perturbation, or
    else the nearest measured dose. The split half predicts one half of the left-out cells from
    the other half. Its ``l2`` has the noise of both halves. A perfect prediction has about half of it.

    Raises
    ------
    ValueError
        If no condition can be left out.

    References
    ----------
    Ahlmann-Eltze et al. (2025), Deep-learning-based gene perturbation effect prediction does not yet
    outperform simple linear baselines. Viñas Torné et al. (2025), Systema.

    Examples
    --------
    >>> import betavi
    >>> simulated = betavi.datasets.simulate_perturbations
    >>> adata = simulated(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> betavi.EffectVI.setup_anndata(adata, perturbation_key="perturbation")
    >>> table = betavi.EffectVI(adata).evaluate(show_progress=False)
    >>> bool(table.loc["EffectVI", "l2"] < table.loc["no change", "l2"])
    True
    """
    lookup(SPLITS, split, "split")
    check_arguments({"seed": seed})
    check_level(level)
    check_flag("by_condition", by_condition)
    check_flag("show_progress", show_progress)
    model._validate_anndata(None)
    check_whole("n_genes", n_genes)
    rng = np.random.default_rng(seed)
    model.refuse_minified("evaluate")
    data = measured(model, rng)
    folds = folds_of(model.conditions, data.groups, split)
    if not folds:
        raise ValueError(
            f"No condition can be left out with split={split!r}. {SPLITS[split].needed}"
        )
    genes = np.argsort(-data.sums.counts.sum(axis=0))[:n_genes]
    predictions: dict[str, list[np.ndarray]] = {}
    covered = []
    estimates = estimates_without(model, data, folds)
    for fold in track(folds, "Leaving out conditions", disable=not show_progress):
        own, inside = own_prediction(next(estimates), data, fold, genes, level, rng)
        covered.append(inside)
        found = {OWN: own} | baselines_of(split, model.conditions, data, fold, genes)
        found[CEILING] = log_profile(data.halves[0][fold.held_out].sum(axis=0)[genes])
        for name, profile in found.items():
            predictions.setdefault(name, []).append(profile)
    names = [fold.name for fold in folds]
    tables = tables_of(truth_of(model, data, folds, genes), predictions, names)
    tables[OWN]["coverage"] = covered
    if by_condition:
        joined = pd.concat(tables, names=["method", "condition"])
        return joined.swaplevel().sort_index(level=0, sort_remaining=False)
    return means_of(tables)


def estimates_without(
    model: LatentModel, data: Measured, folds: list[Fold]
) -> Iterator[EffectEstimate]:
    """Yield the effects estimated without the cells of each fold, once if the same cells are left out."""
    for _, some in groupby(folds, key=lambda fold: fold.left_out.tobytes()):
        same = list(some)
        rest = ~same[0].left_out
        sums: GroupSums = type(data.sums)(*(part[rest] for part in data.sums))
        estimate = estimate_effects(model.module, data.groups.codes[rest], sums)
        yield from [estimate] * len(same)


def own_prediction(
    estimate: EffectEstimate,
    data: Measured,
    fold: Fold,
    genes: np.ndarray,
    level: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Return the expected log profile of a fold, and the share of its genes inside the interval."""
    condition = condition_in(estimate, fold.parts, fold.doses, fold.context)
    # noise of replicates averages out in proportion to their counts
    totals = data.sums.counts[fold.held_out].sum(axis=1)
    noise_share = float(np.square(totals / totals.sum()).sum())
    drawn = condition_draws(estimate, condition, rng, noise_share)
    shares = drawn.condition[:, genes]
    observed = data.sums.counts[fold.held_out].sum(axis=0)[genes]
    mean = observed.sum() * shares / shares.sum(axis=1, keepdims=True)
    counts = drawn_sums(mean, estimate.inflation[genes], rng)
    below = (counts < observed).mean(axis=0) + rng.random(len(genes)) * (counts == observed).mean(
        axis=0
    )
    tail = (1 - level) / 2
    inside = (below > tail) & (below < 1 - tail)
    return log_profile(counts).mean(axis=0), float(inside.mean())


def drawn_sums(mean: np.ndarray, inflation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return draws of sums of counts over many cells, with variance ``inflation * mean``."""
    shape = mean / np.maximum(inflation - 1, 1e-6)
    return rng.poisson(rng.gamma(np.maximum(shape, 1e-12)) * mean / np.maximum(shape, 1e-12))
