"""Activations that make a decoder's output a positive scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class Shares(nn.Softmax):
    """Scales are shares of a cell's total.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods._scale import SCALE_ACTIVATIONS
    >>> SCALE_ACTIVATIONS["softmax"]()(torch.zeros(1, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    needs_all: ClassVar[bool] = True
    """True if the scale of a feature depends on the decoder's output for the others."""

    def __init__(self) -> None:
        super().__init__(dim=-1)

    def inverse(self, scale: Tensor) -> Tensor:
        """Return the decoder's output for a scale, up to the scale's sum."""
        return scale.log()


class Free(nn.Softplus):
    """Scales are positive, with any sum.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods._scale import SCALE_ACTIVATIONS
    >>> free = SCALE_ACTIVATIONS["softplus"]()
    >>> free(free.inverse(torch.tensor([0.5, 2.0]))).round(decimals=3).tolist()
    [0.5, 2.0]
    """

    needs_all: ClassVar[bool] = False

    def inverse(self, scale: Tensor) -> Tensor:
        """Return the decoder's output for a scale."""
        return scale + (-(-scale).expm1()).log()


SCALE_ACTIVATIONS: dict[str, type[Shares | Free]] = {"softmax": Shares, "softplus": Free}
"""Activations of the scale, ``scale_activation=``."""
