"""Linear map beside a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

SPEED = 10.0
"""Factor of the trained numbers, which change faster than weights of a network. Not tuned."""


class LinearPath(nn.Module):
    """Linear map that is added to a network's output. Training changes only its strength.

    A network with few images learns them by heart. The map does not: it has one trained number for
    each latent dimension. A high β makes dimensions weaker. The map is zero before :meth:`start_at`.

    Parameters
    ----------
    n_in, n_out
        Numbers of inputs and outputs.
    reads_latent
        True if the inputs are latent dimensions. False if the outputs are.

    Examples
    --------
    >>> path = LinearPath(3, 2, reads_latent=True)
    >>> path(torch.ones(1, 3)).tolist()
    [[0.0, 0.0]]
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, n_in: int, n_out: int, *, reads_latent: bool) -> None:
        super().__init__()
        self.reads_latent = reads_latent
        self.log_strength = nn.Parameter(torch.zeros(n_in if reads_latent else n_out))
        self.register_buffer("weight", torch.zeros(n_out, n_in))
        self.register_buffer("bias", torch.zeros(n_out))

    def start_at(self, weight: Tensor, bias: Tensor) -> None:
        """Set the weight, ``(n_out, n_in)``, and the bias, ``(n_out,)``."""
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(..., n_out)`` for ``(..., n_in)``."""
        strength = (SPEED * self.log_strength).exp()
        if self.reads_latent:
            return linear(x * strength, self.weight, self.bias)
        return linear(x, self.weight, self.bias) * strength
