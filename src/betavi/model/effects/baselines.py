"""Baselines of each split, from the sums of counts of the conditions that were not left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi.diagnostics.effects.baselines import COMBINATION_BASELINES, Screen, log_profile
from betavi.diagnostics.effects.transfer import CONTEXT_BASELINES, DOSE_BASELINES
from betavi.model.effects.folds import condition_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from betavi.data.conditions import Conditions
    from betavi.model.effects.folds import Fold, Key, Measured

    Sums = dict[Key, np.ndarray]


Predictions = dict[str, np.ndarray]


def sums_by_condition(
    conditions: Conditions, data: Measured, fold: Fold, genes: np.ndarray
) -> Sums:
    """Return the sums of counts of the conditions that are not left out, by perturbations, doses, context."""
    found: Sums = {}
    for code, counts, held_out in zip(
        data.groups.codes, data.sums.counts, fold.held_out, strict=True
    ):
        if not held_out:
            key = (*condition_of(conditions, code), int(code[2]))
            # controls have no dose
            key = key if key[0] else ((), None, key[2])
            found[key] = found.get(key, 0) + counts[genes]
    return found


def control_of(sums: Sums, context: int) -> np.ndarray:
    """Return the sums of counts of the controls in a context."""
    return sums[(), None, context]


def _of_combination(fold: Fold, sums: Sums) -> Predictions:
    """Return the predictions of a combination, by name of the baseline."""
    here = {key: counts for key, counts in sums.items() if key[2] == fold.context}
    counts = {str(key): each for key, each in here.items()}
    parts = {str(key): frozenset(map(str, key[0])) for key in here}
    screen = Screen(counts, parts, str(((), None, fold.context)))
    wanted = frozenset(map(str, fold.parts))
    return {name: baseline(screen, wanted) for name, baseline in COMBINATION_BASELINES.items()}


def _of_context(fold: Fold, sums: Sums) -> Predictions:
    """Return the predictions of a condition in another context, by name of the baseline."""
    others = [
        (log_profile(control_of(sums, context)), log_profile(counts))
        for (parts, doses, context), counts in sums.items()
        if (parts, doses) == (fold.parts, fold.doses) and ((), None, context) in sums
    ]
    control = log_profile(control_of(sums, fold.context))
    return {name: baseline(control, others) for name, baseline in CONTEXT_BASELINES.items()}


def _of_dose(fold: Fold, sums: Sums) -> Predictions:
    """Return the predictions of another dose, by name of the baseline."""
    assert fold.doses is not None
    others = {
        doses[0]: log_profile(counts)
        for (parts, doses, context), counts in sums.items()
        if parts == fold.parts and context == fold.context and doses is not None
    }
    control = log_profile(control_of(sums, fold.context))
    dose = fold.doses[0]
    return {name: baseline(control, dose, others) for name, baseline in DOSE_BASELINES.items()}


def better_single(fold: Fold, sums: Sums, observed: np.ndarray) -> np.ndarray:
    """Return the profile of the perturbation that is closest to the left-out one, which it reads."""
    profiles = [
        log_profile(counts)
        for (parts, _, context), counts in sums.items()
        if len(parts) == 1 and parts[0] in fold.parts and context == fold.context
    ]
    return min(profiles, key=lambda profile: float(np.linalg.norm(profile - observed)))


BASELINES: dict[str, Callable[[Fold, Sums], Predictions]] = {
    "combination": _of_combination,
    "context": _of_context,
    "dose": _of_dose,
}
"""Functions that return the predictions of all baselines, by split."""


def baselines_of(
    split: str, conditions: Conditions, data: Measured, fold: Fold, genes: np.ndarray
) -> Predictions:
    """Return the predictions of all baselines of a split for one fold, by name."""
    sums = sums_by_condition(conditions, data, fold, genes)
    found = BASELINES[split](fold, sums)
    if split == "combination":
        observed = log_profile(data.sums.counts[fold.held_out].sum(axis=0)[genes])
        found["better single"] = better_single(fold, sums, observed)
    return found
