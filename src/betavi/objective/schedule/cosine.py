"""Cosine warm-up."""

from __future__ import annotations

import math

from betavi.objective.schedule._base import Schedule, full, join


def cosine(warmup: float) -> Schedule:
    """Schedule that rises over the warm-up from 0 to 1 as half a cosine. See :func:`cyclical`.

    Examples
    --------
    >>> from betavi.objective import cosine
    >>> [round(cosine(0.5)(share), 2) for share in (0, 0.125, 0.25, 0.5)]
    [0.0, 0.15, 0.5, 1.0]
    """
    return join([half_cosine, full], [warmup])


def half_cosine(share: float) -> float:
    """Return a value that rises from 0 to 1."""
    return (1 - math.cos(math.pi * share)) / 2
