"""Cyclical warm-up."""

from __future__ import annotations

from betavi.objective.schedule._base import Schedule, full, join, repeat

N_CYCLES = 4
"""Number of rises. Each takes half of its cycle, as in Fu et al. (2019)."""


def cyclical(warmup: float) -> Schedule:
    """Schedule with four cycles in the warm-up: a straight rise from 0 to 1, then as long at 1.

    ``warmup`` is a share of the planned steps. The schedule is a function of the share of the
    planned steps that are done, from 0 to 1, and returns the factor of β.

    Reference: Fu et al. (2019), Cyclical annealing schedule.

    Examples
    --------
    >>> from betavi.objective import cyclical
    >>> [cyclical(1.0)(share) for share in (0, 0.0625, 0.125, 0.25)]
    [0.0, 0.5, 1.0, 0.0]
    """
    return join([repeat(rise_and_stay, N_CYCLES), full], [warmup])


def rise_and_stay(share: float) -> float:
    """Return a value that rises from 0 to 1 in the first half, and stays at 1."""
    return min(1.0, 2 * share)
