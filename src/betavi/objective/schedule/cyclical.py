"""Cyclical warm-up."""

from __future__ import annotations

from betavi.objective.schedule._base import Schedule, full, join, repeat

N_CYCLES = 4
"""Number of rises. Each takes half of its cycle, as in Fu et al. (2019)."""


def cyclical(warmup: float) -> Schedule:
    """Four rises from 0 to 1 within the warm-up, each followed by an equal time at 1.

    Reference: Fu et al. (2019), Cyclical annealing schedule.

    Examples
    --------
    >>> from betavi.objective import cyclical
    >>> [cyclical(1.0)(share) for share in (0, 0.0625, 0.125, 0.25)]
    [0.0, 0.5, 1.0, 0.0]
    """
    return join([repeat(lambda share: min(1.0, 2 * share), N_CYCLES), full], [warmup])
