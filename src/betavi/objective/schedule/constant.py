"""No warm-up."""

from __future__ import annotations

from betavi.objective.schedule._base import Schedule, full


def constant(_warmup: float = 0.0) -> Schedule:
    """Schedule that is 1 from the first step.

    Examples
    --------
    >>> from betavi.objective import constant
    >>> [constant()(share) for share in (0, 0.5, 1)]
    [1.0, 1.0, 1.0]
    """
    return full
