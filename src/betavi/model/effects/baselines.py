"""Baselines of each split, from the sums of counts of the conditions that were not left out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from betavi.diagnostics.effects.baselines import COMBINATION_BASELINES, Screen, log_profile
from betavi.diagnostics.effects.transfer import CONTEXT_BASELINES, DOSE_BASELINES
from betavi.model.effects.folds import condition_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from betavi.data.conditions import Conditions
    from betavi.model.effects.folds import Fold, Key, Measured


def sums_by_condition(
    conditions: Conditions, data: Measured, fold: Fold, genes: np.ndarray
) -> dict[Key, np.ndarray]:
    """Return the sums of counts of the conditions that are not left out, by perturbations, doses, context."""
    found: dict[Key, np.ndarray] = {}
    for code, counts, held_out in zip(
        data.groups.codes, data.sums.counts, fold.held_out, strict=True
    ):
        if not held_out:
            key = (*condition_of(conditions, code), int(code[2]))
            # controls have no dose
            key = key if key[0] else ((), None, key[2])
            found[key] = found.get(key, 0) + counts[genes]
    return found


def control_of(sums: dict[Key, np.ndarray], context: int) -> np.ndarray:
    """Return the sums of counts of the controls in a context."""
    return sums[(), None, context]


def of_combination(
    name: str, conditions: Conditions, data: Measured, fold: Fold, genes: np.ndarray
) -> np.ndarray:
    """Return the prediction of a baseline for a combination."""
    sums = sums_by_condition(conditions, data, fold, genes)
    here = {key: counts for key, counts in sums.items() if key[2] == fold.context}
    counts = {str(key): each for key, each in here.items()}
    parts = {str(key): frozenset(map(str, key[0])) for key in here}
    screen = Screen(counts, parts, str(((), None, fold.context)))
    return COMBINATION_BASELINES[name](screen, frozenset(map(str, fold.parts)))


def of_context(
    name: str, conditions: Conditions, data: Measured, fold: Fold, genes: np.ndarray
) -> np.ndarray:
    """Return the prediction of a baseline for a condition in another context."""
    sums = sums_by_condition(conditions, data, fold, genes)
    others = [
        (log_profile(control_of(sums, context)), log_profile(counts))
        for (parts, doses, context), counts in sums.items()
        if (parts, doses) == (fold.parts, fold.doses) and ((), None, context) in sums
    ]
    return CONTEXT_BASELINES[name](log_profile(control_of(sums, fold.context)), others)


def of_dose(
    name: str, conditions: Conditions, data: Measured, fold: Fold, genes: np.ndarray
) -> np.ndarray:
    """Return the prediction of a baseline for another dose."""
    sums = sums_by_condition(conditions, data, fold, genes)
    assert fold.doses is not None
    others = {
        doses[0]: log_profile(counts)
        for (parts, doses, context), counts in sums.items()
        if parts == fold.parts and context == fold.context and doses is not None
    }
    control = log_profile(control_of(sums, fold.context))
    return DOSE_BASELINES[name](control, fold.doses[0], others)


def better_single(
    conditions: Conditions, data: Measured, fold: Fold, genes: np.ndarray
) -> np.ndarray:
    """Return the profile of the perturbation that is closest to the left-out cells, which it reads."""
    sums = sums_by_condition(conditions, data, fold, genes)
    observed = log_profile(data.sums.counts[fold.held_out].sum(axis=0)[genes])
    profiles = [
        log_profile(counts)
        for (parts, _, context), counts in sums.items()
        if len(parts) == 1 and parts[0] in fold.parts and context == fold.context
    ]
    return min(profiles, key=lambda profile: float(np.linalg.norm(profile - observed)))


def baselines_of(
    split: str, conditions: Conditions, data: Measured, fold: Fold, genes: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the predictions of all baselines of a split for one fold, by name."""
    return {
        name: baseline(conditions, data, fold, genes) for name, baseline in BASELINES[split].items()
    }


BASELINES: dict[str, dict[str, Callable[[Conditions, Measured, Fold, np.ndarray], np.ndarray]]] = {
    "combination": {
        **{name: partial(of_combination, name) for name in COMBINATION_BASELINES},
        "better single": better_single,
    },
    "context": {name: partial(of_context, name) for name in CONTEXT_BASELINES},
    "dose": {name: partial(of_dose, name) for name in DOSE_BASELINES},
}
"""Baselines by split and name."""
