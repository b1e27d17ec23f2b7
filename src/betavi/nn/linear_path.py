"""Linear map beside a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class LinearPath(nn.Module):
    """Linear map that is added to a network's output. It is not trained.

    A network with few images learns them by heart. The map does not, because it stays at its start. It
    is zero before :meth:`start_at`.

    Parameters
    ----------
    n_in, n_out
        Numbers of inputs and outputs.

    Examples
    --------
    >>> path = LinearPath(3, 2)
    >>> path(torch.ones(1, 3)).tolist()
    [[0.0, 0.0]]
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_out, n_in))
        self.register_buffer("bias", torch.zeros(n_out))

    def start_at(self, weight: Tensor, bias: Tensor) -> None:
        """Set the weight, ``(n_out, n_in)``, and the bias, ``(n_out,)``."""
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(..., n_out)`` for ``(..., n_in)``."""
        return linear(x, self.weight, self.bias)
