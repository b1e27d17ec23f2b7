"""Activations that turn a decoder's output into a positive scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class Shares(nn.Softmax):
    """Scales that are shares of a cell's total.

    Examples
    --------
    >>> SCALE_ACTIVATIONS["softmax"].needs_all
    True
    """

    needs_all: ClassVar[bool] = True
    """True if the scale of a feature depends on the decoder's output for other features."""

    def __init__(self) -> None:
        super().__init__(dim=-1)

    def inverse(self, scale: Tensor) -> Tensor:
        """Return the decoder's output with these shares."""
        return scale.log()


class Free(nn.Softplus):
    """Positive scales with any sum.

    Examples
    --------
    >>> SCALE_ACTIVATIONS["softplus"].needs_all
    False
    """

    needs_all: ClassVar[bool] = False

    def inverse(self, scale: Tensor) -> Tensor:
        """Return the decoder's output for a scale."""
        return scale + (-(-scale).expm1()).log()


SCALE_ACTIVATIONS: dict[str, type[Shares | Free]] = {"softmax": Shares, "softplus": Free}
"""Activations of the scale, ``scale_activation=``."""
