"""Probability between two values, of a normal distribution, far out in its tails too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def count_cell(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of what rounds to each count, the cell of zero being open below."""
    return (counts - 0.5).where(counts > 0, -torch.inf), counts + 0.5


def log_detection_at(loc: Tensor, deviation: Tensor, edge: Tensor, counts: Tensor) -> Tensor:
    """Return log P(y > edge) where there is a count, and log P(y < edge) where there is none.

    Not the one from the other: each can be too small for its complement to show it.
    """
    distance = (edge.double() - loc.double()) / deviation.double()
    return torch.special.log_ndtr(distance.where(counts == 0, -distance))


def log_mass_between(loc: Tensor, deviation: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return log P(low < y < high) of y normal, in nats.

    Parameters
    ----------
    loc, deviation
        Mean and standard deviation.
    low, high
        The ends, ``low < high``; either may be infinite.

    Returns
    -------
    Nats, of the shape that all broadcast to, in double precision.
    """
    a, b = ((end.double() - loc.double()) / deviation.double() for end in (low, high))
    # in the upper tail both probabilities are 1 in floating point: look from the other side
    mirrored = a > 0
    a, b = a.where(~mirrored, -b), b.where(~mirrored, -a)
    log_below = torch.special.log_ndtr(b)
    share = (torch.special.log_ndtr(a) - log_below).exp()
    return log_below + torch.log1p(-share)
