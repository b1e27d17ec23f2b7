"""Simple predictions of a condition in another context, or at another dose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Changes = list[tuple[np.ndarray, np.ndarray]]
"""Profiles of control and condition, for each other context."""


def mean_of_contexts(control: np.ndarray, others: Changes) -> np.ndarray:
    """Return the control's profile plus the mean change in the other contexts.

    ``others`` are the profiles of control and condition in each other context.

    Examples
    --------
    >>> before, after = np.zeros(2), np.array([1.0, 2.0])
    >>> mean_of_contexts(np.ones(2), [(before, after), (before, after)]).tolist()
    [2.0, 3.0]
    """
    return control + np.mean([after - before for before, after in others], axis=0)


def nearest_context(control: np.ndarray, others: Changes) -> np.ndarray:
    """Return the control's profile plus the change in the context with the most similar control.

    Examples
    --------
    >>> before, after = np.zeros(2), np.array([1.0, 2.0])
    >>> nearest_context(np.ones(2), [(before, after), (before, after)]).tolist()
    [2.0, 3.0]
    """
    before, after = min(others, key=lambda pair: float(np.linalg.norm(pair[0] - control)))
    return control + after - before


def scaled_mean(control: np.ndarray, others: Changes) -> np.ndarray:
    """Return the control's profile plus a multiple of the mean change in the other contexts.

    The factor is fitted by predicting each of the other contexts from the rest.

    Examples
    --------
    >>> before, after = np.zeros(2), np.array([1.0, 2.0])
    >>> scaled_mean(np.ones(2), [(before, after), (before, after)]).tolist()
    [2.0, 3.0]
    """
    changes = np.stack([after - before for before, after in others])
    if len(changes) < 2:
        return control + changes[0]
    rest = (changes.sum(axis=0) - changes) / (len(changes) - 1)
    factor = (rest * changes).sum() / max(np.square(rest).sum(), np.finfo(float).tiny)
    return control + factor * changes.mean(axis=0)


CONTEXT_BASELINES: dict[str, Callable[[np.ndarray, Changes], np.ndarray]] = {
    "no change": lambda control, _: control,
    "mean of other contexts": mean_of_contexts,
    "scaled mean": scaled_mean,
    "nearest context": nearest_context,
}
"""Predictions of a condition in a context where it was not measured, by name."""


Dose = float | tuple[float, ...]
"""Dose of a perturbation, or one for each perturbation of a combination."""


def _apart(dose: Dose, other: Dose) -> float:
    """Return the distance of doses on a log scale."""
    return float(np.linalg.norm(np.log(np.divide(dose, other))))


def nearest_dose(_control: np.ndarray, dose: Dose, others: dict[Dose, np.ndarray]) -> np.ndarray:
    """Return the profile at the closest dose, on a log scale. ``others`` are profiles by dose.

    Examples
    --------
    >>> nearest_dose(np.zeros(1), 1.0, {0.1: np.ones(1), 5.0: np.array([3.0])}).round(1).tolist()
    [3.0]
    """
    return others[min(others, key=lambda other: _apart(dose, other))]


def interpolated(control: np.ndarray, dose: Dose, others: dict[Dose, np.ndarray]) -> np.ndarray:
    """Return the profile between the doses below and above, linear on a log scale.

    Outside the measured doses, it is that of the closest dose.

    Examples
    --------
    >>> interpolated(np.zeros(1), 1.0, {0.1: np.ones(1), 5.0: np.array([3.0])}).round(1).tolist()
    [2.2]
    """
    below = [other for other in others if np.all(np.less_equal(other, dose))]
    above = [other for other in others if np.all(np.greater_equal(other, dose))]
    if not below or not above:
        return nearest_dose(control, dose, others)
    low, high = (min(side, key=lambda other: _apart(dose, other)) for side in (below, above))
    share = _apart(dose, low) / (_apart(dose, low) + _apart(high, dose))
    found: np.ndarray = (1 - share) * others[low] + share * others[high]
    return found


DOSE_BASELINES: dict[str, Callable[[np.ndarray, Dose, dict[Dose, np.ndarray]], np.ndarray]] = {
    "no change": lambda control, _dose, _others: control,
    "nearest dose": nearest_dose,
    "interpolated": interpolated,
}
"""Predictions of a dose that was not measured, by name."""
