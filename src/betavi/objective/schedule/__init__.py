"""Schedules, one file each: factor of β at a share of the planned steps.

A schedule is a function from [0, 1] to a factor of β. A member of :data:`SCHEDULES` makes a
schedule from the length of the warm-up. After the warm-up, the factor is 1.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING

from betavi._tables import lookup
from betavi.objective.schedule.constant import constant
from betavi.objective.schedule.cosine import cosine
from betavi.objective.schedule.cyclical import cyclical
from betavi.objective.schedule.linear import linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from betavi.objective.schedule._base import Schedule

SCHEDULES: dict[str, Callable[[float], Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "cyclical": cyclical,
}
"""Schedules by name, ``beta_schedule=``. Each takes the length of the warm-up."""

PROBES = [percent / 100 for percent in range(101)]
"""Shares at which a schedule is checked before training."""


def end_of_warmup(word: str | Schedule, warmup: float) -> float:
    """Return the share of the planned steps after which a schedule is constant.

    If the schedule is always constant, return 0. A function is evaluated at 101 shares to find the
    end.
    """
    schedule = schedule_of(word, warmup)
    factors = [schedule(share) for share in PROBES]
    changes = [i for i in range(1, len(factors)) if factors[i] != factors[i - 1]]
    if not changes:
        return 0.0
    return PROBES[changes[-1]] if callable(word) else warmup


def schedule_of(word: str | Schedule, warmup: float) -> Schedule:
    """Return the schedule that a user names, or the user's own function after a check.

    Parameters
    ----------
    word
        Key of :data:`SCHEDULES`, or a function from the share of the planned steps to a factor of β.
    warmup
        Share of the planned steps until β is reached. A function as ``word`` does not use this
        share.

    Returns
    -------
    Schedule. A function is returned unchanged.

    Raises
    ------
    ValueError
        If the word is not in the table, the warm-up is not within [0, 1], or the function returns a
        value that is not a finite number of at least 0.

    Examples
    --------
    >>> from betavi.objective import schedule_of
    >>> schedule_of("linear", 0.25)(0.125)
    0.5
    """
    if not 0 <= warmup <= 1:
        raise ValueError(f"`warmup` must be a share of the planned steps, 0 to 1, not {warmup!r}.")
    if not callable(word):
        return lookup(SCHEDULES, word, "beta_schedule")(warmup)
    for share in PROBES:
        factor = word(share)
        if not (isinstance(factor, Real) and 0 <= factor < math.inf):
            raise ValueError(
                f"`beta_schedule` returned {factor!r} at {share:.0%} of the steps. It must return a "
                "factor of β, which is a finite number of at least 0."
            )
    return word


__all__ = ["SCHEDULES", "schedule_of"]
