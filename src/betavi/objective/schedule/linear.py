"""Linear warm-up."""

from __future__ import annotations

from betavi.objective.schedule._base import Schedule, full, join


def linear(warmup: float) -> Schedule:
    """Schedule that rises from 0 to 1 in a straight line over the warm-up. See :func:`cyclical`.

    Reference: Bowman et al. (2016), Generating sentences from a continuous space.

    Examples
    --------
    >>> from betavi.objective import linear
    >>> [linear(0.5)(share) for share in (0, 0.25, 0.75)]
    [0.0, 0.5, 1.0]
    """
    return join([rise, full], [warmup])


def rise(share: float) -> float:
    """Return a value that rises from 0 to 1."""
    return share
