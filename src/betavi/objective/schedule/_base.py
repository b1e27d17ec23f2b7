"""Schedules as functions, and functions that combine schedules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from betavi._tables import check_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

Schedule = Callable[[float], float]
"""A function from the share of the planned steps, within [0, 1], to a factor of β."""


def full(_share: float) -> float:
    """Return 1: all of β."""
    return 1.0


def join(schedules: Sequence[Schedule], boundaries: Sequence[float]) -> Schedule:
    """Return a schedule that runs several schedules one after the other.

    Parameters
    ----------
    schedules
        Schedules, each stretched over its own part of the run.
    boundaries
        Ascending shares at which the next schedule starts. There is one share fewer than schedules.

    Returns
    -------
    Function from the share of the planned steps, within [0, 1], to a factor of β.

    Raises
    ------
    ValueError
        If the number of boundaries is wrong, or they do not ascend within [0, 1].

    Examples
    --------
    >>> from betavi.objective import join
    >>> up_then_half = join([lambda share: share, lambda share: 0.5], [0.5])
    >>> [up_then_half(share) for share in (0, 0.25, 0.75)]
    [0.0, 0.5, 0.5]
    """
    ends = [0.0, *boundaries, 1.0]
    if len(ends) != len(schedules) + 1:
        n, n_given = len(schedules), len(boundaries)
        raise ValueError(f"{n} schedules need {n - 1} `boundaries`, but {n_given} were passed.")
    if any(not 0 <= end <= 1 for end in ends) or ends != sorted(ends):
        raise ValueError(f"`boundaries` must ascend from 0 to 1, not {list(boundaries)}.")

    return partial(_joined, list(schedules), ends)


def _joined(schedules: list[Schedule], ends: list[float], share: float) -> float:
    part = sum(share >= end for end in ends[1:-1])
    length = ends[part + 1] - ends[part]
    return schedules[part]((share - ends[part]) / length if length else 1.0)


def repeat(schedule: Schedule, n_times: int) -> Schedule:
    """Return a schedule that repeats another schedule, each time over an equal share of the run.

    Parameters
    ----------
    schedule
        Schedule to repeat.
    n_times
        Number of repetitions, at least 1.

    Returns
    -------
    Schedule, as from :func:`join`.

    Raises
    ------
    ValueError
        If ``n_times`` is not a whole number of at least 1.

    Examples
    --------
    >>> from betavi.objective import repeat
    >>> [repeat(lambda share: share, 2)(share) for share in (0.25, 0.5, 0.75)]
    [0.5, 0.0, 0.5]
    """
    check_whole("n_times", n_times)
    return join([schedule] * n_times, [cycle / n_times for cycle in range(1, n_times)])


def scale(schedule: Schedule, factor: float) -> Schedule:
    """Return a schedule times a factor.

    Parameters
    ----------
    schedule
        Schedule to scale.
    factor
        Factor of the values of the schedule.

    Returns
    -------
    Schedule, as from :func:`join`.

    Examples
    --------
    >>> from betavi.objective import linear, scale
    >>> scale(linear(0.5), 3.0)(0.75)
    3.0
    """
    return partial(_scaled, schedule, factor)


def _scaled(schedule: Schedule, factor: float, share: float) -> float:
    return factor * schedule(share)
