"""Baselines of each split, from the sums of counts of the conditions that were not left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi.diagnostics.effects.baselines import COMBINATION_BASELINES, Screen, log_profile
from betavi.diagnostics.effects.transfer import CONTEXT_BASELINES, DOSE_BASELINES

if TYPE_CHECKING:
    from collections.abc import Callable

    from betavi.data.conditions import Conditions
    from betavi.diagnostics.effects.baselines import Parts
    from betavi.diagnostics.effects.transfer import Dose
    from betavi.model.effects.folds import Fold, Key, Measured

    Sums = dict[Key, np.ndarray]


Predictions = dict[str, np.ndarray]


def sums_by_condition(
    conditions: Conditions, data: Measured, fold: Fold, genes: np.ndarray
) -> Sums:
    """Return the sums of counts of the conditions that are not left out, by perturbations, doses, context."""
    found: Sums = {}
    for code, counts, left_out in zip(
        data.groups.codes, data.sums.counts, fold.left_out, strict=True
    ):
        if not left_out:
            key = (*conditions.key_of(code), int(code[2]))
            found[key] = found.get(key, 0) + counts[genes]
    return found


def control_of(sums: Sums, context: int) -> np.ndarray:
    """Return the sums of counts of the controls in a context."""
    return sums[(), None, context]


def _with_doses(parts: tuple[int, ...], doses: tuple[float, ...] | None) -> Parts:
    """Return the doses of perturbations, by name."""
    return dict(zip(map(str, parts), doses or [None] * len(parts), strict=True))


def _screen_of(fold: Fold, sums: Sums) -> Screen:
    """Return the conditions in the context of a fold."""
    here = {key: counts for key, counts in sums.items() if key[2] == fold.context}
    counts = {str(key): each for key, each in here.items()}
    parts = {str(key): _with_doses(*key[:2]) for key in here}
    return Screen(counts, parts, str(((), None, fold.context)))


def _of_combination(fold: Fold, sums: Sums) -> Predictions:
    """Return the predictions of a combination, by name of the baseline."""
    screen, wanted = _screen_of(fold, sums), _with_doses(fold.parts, fold.doses)
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
    others: dict[Dose, np.ndarray] = {
        doses: log_profile(counts)
        for (parts, doses, context), counts in sums.items()
        if parts == fold.parts and context == fold.context and doses is not None
    }
    control = log_profile(control_of(sums, fold.context))
    return {
        name: baseline(control, fold.doses, others) for name, baseline in DOSE_BASELINES.items()
    }


def better_single(fold: Fold, sums: Sums, observed: np.ndarray) -> np.ndarray:
    """Return the profile of the perturbation that is closest to the left-out one, which it reads."""
    screen, wanted = _screen_of(fold, sums), _with_doses(fold.parts, fold.doses)
    profiles = [screen.profile(name) for name in screen.singles(wanted)]
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
