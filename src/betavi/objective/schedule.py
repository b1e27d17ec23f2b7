"""Schedules: the factor of β in force at a share of the planned steps.

A schedule is a function from [0, 1] to a factor of β. A member of :data:`SCHEDULES` makes one for
the length of a warm-up, after which the factor is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING

from betavi._tables import check_whole, lookup

if TYPE_CHECKING:
    from collections.abc import Sequence

Schedule = Callable[[float], float]
"""A function from the share of the planned steps, within [0, 1], to a factor of β."""

N_CYCLES = 4
"""Number of climbs of :func:`cyclical`, each over half of its cycle, as in Fu et al. (2019)."""

PROBES = [percent / 100 for percent in range(101)]
"""Shares at which a schedule is tried before training."""


def join(schedules: Sequence[Schedule], boundaries: Sequence[float]) -> Schedule:
    """Return a schedule that follows several, one after the other.

    Parameters
    ----------
    schedules
        Schedules, each stretched over its own part of the run.
    boundaries
        Ascending shares at which the next schedule takes over: one fewer than schedules.

    Returns
    -------
    A function from the share of the planned steps, within [0, 1], to a factor of β.

    Raises
    ------
    ValueError
        If the boundaries do not fit the schedules, or do not ascend within [0, 1].

    Examples
    --------
    >>> from betavi.objective import join
    >>> up_then_half = join([lambda share: share, lambda share: 0.5], [0.5])
    >>> [up_then_half(share) for share in (0, 0.25, 0.75)]
    [0.0, 0.5, 0.5]
    """
    ends = [0.0, *boundaries, 1.0]
    if len(ends) != len(schedules) + 1:
        raise ValueError(f"{len(schedules)} schedules need {len(schedules) - 1} boundaries between "
                         f"them, not {len(boundaries)}.")  # fmt: skip
    if any(not 0 <= end <= 1 for end in ends) or ends != sorted(ends):
        raise ValueError(f"Boundaries must ascend from 0 to 1, and {list(boundaries)} do not.")

    def joined(share: float) -> float:
        part = sum(share >= end for end in boundaries)
        length = ends[part + 1] - ends[part]
        return schedules[part]((share - ends[part]) / length if length else 1.0)

    return joined


def repeat(schedule: Schedule, n_times: int) -> Schedule:
    """Return a schedule that runs through another several times.

    Parameters
    ----------
    schedule, n_times
        Schedule to repeat, and number of repetitions, at least 1, each over an equal share.

    Returns
    -------
    As of :func:`join`.

    Raises
    ------
    ValueError
        If ``n_times`` is no whole number of at least 1.

    Examples
    --------
    >>> from betavi.objective import repeat
    >>> [repeat(lambda share: share, 2)(share) for share in (0.25, 0.5, 0.75)]
    [0.5, 0.0, 0.5]
    """
    check_whole("n_times", n_times)
    return join([schedule] * n_times, [cycle / n_times for cycle in range(1, n_times)])


def scale(schedule: Schedule, factor: float) -> Schedule:
    """Return a schedule multiplied by a factor.

    Parameters
    ----------
    schedule, factor
        Schedule to scale, and the factor of its values.

    Returns
    -------
    As of :func:`join`.

    Examples
    --------
    >>> from betavi.objective import linear, scale
    >>> scale(linear(0.5), 3.0)(0.75)
    3.0
    """
    return lambda share: factor * schedule(share)


def _full(_share: float) -> float:
    """Return 1: all of β."""
    return 1.0


def constant(_warmup: float = 0.0) -> Schedule:
    """Be at β from the first step.

    Examples
    --------
    >>> from betavi.objective import constant
    >>> [constant()(share) for share in (0, 0.5, 1)]
    [1.0, 1.0, 1.0]
    """
    return _full


def linear(warmup: float) -> Schedule:
    """Climb a straight line from 0 to the end of the warm-up.

    Reference: Bowman et al. (2016), Generating sentences from a continuous space.

    Examples
    --------
    >>> from betavi.objective import linear
    >>> [linear(0.5)(share) for share in (0, 0.25, 0.75)]
    [0.0, 0.5, 1.0]
    """
    return join([lambda share: share, _full], [warmup])


def cosine(warmup: float) -> Schedule:
    """Climb half a cosine from 0, flat at both ends of the warm-up.

    Examples
    --------
    >>> from betavi.objective import cosine
    >>> [round(cosine(0.5)(share), 2) for share in (0, 0.125, 0.25, 0.5)]
    [0.0, 0.15, 0.5, 1.0]
    """
    return join([lambda share: (1 - math.cos(math.pi * share)) / 2, _full], [warmup])


def cyclical(warmup: float) -> Schedule:
    """Climb from 0 four times within the warm-up, each time held as long.

    Reference: Fu et al. (2019), Cyclical annealing schedule.

    Examples
    --------
    >>> from betavi.objective import cyclical
    >>> [cyclical(1.0)(share) for share in (0, 0.0625, 0.125, 0.25)]
    [0.0, 0.5, 1.0, 0.0]
    """
    return join([repeat(lambda share: min(1.0, 2 * share), N_CYCLES), _full], [warmup])


SCHEDULES: dict[str, Callable[[float], Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "cyclical": cyclical,
}
"""Schedules by the name a user gives, ``beta_schedule=``; each takes the length of the warm-up."""


def schedule_of(word: str | Schedule, warmup: float) -> Schedule:
    """Return the schedule that a user names, or the user's own function after a check.

    Parameters
    ----------
    word
        A key of :data:`SCHEDULES`, or a function from the share of the planned steps, within
        [0, 1], to the factor of β in force there.
    warmup
        Share of the planned steps until β is reached; not used by a function.

    Returns
    -------
    As of :func:`join`; a function is returned as it is.

    Raises
    ------
    ValueError
        If the word is not in the table, the warm-up is not within [0, 1], or the function returns
        anything but finite numbers of at least 0.

    Examples
    --------
    >>> from betavi.objective import schedule_of
    >>> schedule_of("linear", 0.25)(0.125)
    0.5
    """
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup is a share of the planned steps, from 0 to 1, not {warmup!r}.")
    if not callable(word):
        return lookup(SCHEDULES, word, "beta_schedule")(warmup)
    for share in PROBES:
        factor = word(share)
        if not (isinstance(factor, Real) and 0 <= factor < math.inf):
            raise ValueError(
                f"beta_schedule returned {factor!r} at {share:.0%} of the steps. It has to return "
                "the factor of β in force there, a finite number of at least 0."
            )
    return word


def end_of_warmup(word: str | Schedule, warmup: float) -> float:
    """Return the share of the planned steps from which on a schedule does not change.

    Parameters
    ----------
    word, warmup
        See :func:`schedule_of`. The end of a function is found by trying it at 101 shares.

    Returns
    -------
    A share, within [0, 1]; 0 if the schedule never changes.

    Examples
    --------
    >>> from betavi.objective import end_of_warmup
    >>> end_of_warmup("linear", 0.25), end_of_warmup(lambda share: min(1, 2 * share), 0.25)
    (0.25, 0.5)
    """
    schedule = schedule_of(word, warmup)
    factors = [schedule(share) for share in PROBES]
    changes = [i for i in range(1, len(factors)) if factors[i] != factors[i - 1]]
    if not changes:
        return 0.0
    return PROBES[changes[-1]] if callable(word) else warmup
