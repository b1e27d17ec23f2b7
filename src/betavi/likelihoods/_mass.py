"""Probabilities of intervals of a normal distribution, accurate far out in its tails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def count_cell(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of the interval that rounds to each count; that of zero is open below."""
    return (counts - 0.5).where(counts > 0, -torch.inf), counts + 0.5


def log_detection_at(loc: Tensor, deviation: Tensor, edge: Tensor, counts: Tensor) -> Tensor:
    """Return log P(y > edge) where there is a count, and log P(y < edge) elsewhere.

    Each is computed by itself: either can be too small to change its complement.
    """
    distance = (edge.double() - loc.double()) / deviation.double()
    return torch.special.log_ndtr(distance.where(counts == 0, -distance))


def log_mass_between(loc: Tensor, deviation: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return log P(low < y < high) of normal y, in double precision; ends may be infinite."""
    a, b = ((end.double() - loc.double()) / deviation.double() for end in (low, high))
    # in the upper tail both probabilities are 1 in floating point: mirror them
    mirrored = a > 0
    a, b = a.where(~mirrored, -b), b.where(~mirrored, -a)
    log_below = torch.special.log_ndtr(b)
    share = (torch.special.log_ndtr(a) - log_below).exp()
    return log_below + torch.log1p(-share)
