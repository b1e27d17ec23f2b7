"""Networks that know which β they are asked about: gates and turns set by one dial."""

from __future__ import annotations

import math
from contextlib import contextmanager
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scvi.nn import FCLayers

BEYOND = 2.0
"""Training draws β up to this many times the highest asked for.

Networks that change smoothly with β are at their worst at the ends of what they saw, and most at a
high β, at which whole dimensions vanish.
"""

ROUNDING = 1e-6
"""Share by which two β may differ and be the same, of single precision and of logarithms."""


class Dial:
    """The β that a module is set to, shared by every part that reads it.

    Parameters
    ----------
    beta
        One β, or the lowest and the highest of a range.

    Raises
    ------
    ValueError
        If β is negative or not finite, or a range does not ascend from above 0.

    Examples
    --------
    >>> from betavi.nn import Dial
    >>> dial = Dial((0.1, 10.0))
    >>> with dial.at(3.0):
    ...     dial.beta
    3.0
    >>> dial.beta
    1.0
    """

    def __init__(self, beta: float | tuple[float, float]) -> None:
        self.range = _checked_range(beta)
        self.drawn: Tensor | None = None
        self.reset()

    @property
    def is_fixed(self) -> bool:
        """Whether there is one β only."""
        return self.range[0] == self.range[1]

    def reset(self) -> None:
        """Set the dial to the only β or, as 1 is that of the ELBO, to the one closest to 1."""
        low, high = self.range
        self.beta = min(max(1.0, low), high)

    @property
    def level(self) -> float | Tensor:
        """Where log β is, from -1 at the lowest to 1 at the highest; ``(n_cells, 1)`` of several."""
        low, high = map(math.log, self.range)
        log_beta = math.log(self.beta) if self.drawn is None else self.drawn.log()
        return (log_beta - (low + high) / 2) / ((high - low) / 2)

    @property
    def weight(self) -> float | Tensor:
        """The β that weighs each cell's rate, a number or ``(n_cells,)``."""
        return self.beta if self.drawn is None else self.drawn.squeeze(1)

    @contextmanager
    def at(self, beta: float) -> Iterator[None]:
        """Set the dial to another β for a while."""
        before, self.beta = self.beta, beta
        try:
            yield
        finally:
            self.beta = before

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Set the dial, for a while, to where :meth:`reset` leaves it, and draw nothing."""
        before = self.beta, self.drawn
        self.drawn = None
        self.reset()
        try:
            yield
        finally:
            self.beta, self.drawn = before

    @contextmanager
    def drawing(self, n_cells: int, device: torch.device) -> Iterator[None]:
        """Give each cell of a minibatch its own β of the range, if there is one, for a while.

        The draws, ``(n_cells, 1)``, are log-uniform, and evenly spread over the minibatch.
        """
        if not self.is_fixed:
            low, high = math.log(self.range[0]), math.log(BEYOND * self.range[1])
            shares = (torch.randperm(n_cells) + torch.rand(n_cells)) / n_cells
            self.drawn = (low + (high - low) * shares).exp().unsqueeze(1).to(device)
        try:
            yield
        finally:
            self.drawn = None

    def check(self, beta: float) -> None:
        """Refuse a β outside the range.

        Raises
        ------
        ValueError
            If β is outside it by more than rounding can explain.
        """
        low, high = self.range
        margin = 1 + ROUNDING
        if not (isinstance(beta, Real) and low / margin <= beta <= high * margin):
            raise ValueError(
                f"beta={beta!r} is outside the range of this model, {low:g} to {high:g}."
            )


def _checked_range(beta: float | tuple[float, float]) -> tuple[float, float]:
    is_range = isinstance(beta, tuple | list)
    ends = beta if isinstance(beta, tuple | list) else (beta, beta)
    numbers = all(isinstance(end, Real) and 0 <= end < math.inf for end in ends)
    if not numbers or len(ends) != 2 or (is_range and not 0 < ends[0] < ends[1]):
        raise ValueError(
            "beta is a finite number of at least 0, or a pair (low, high) with 0 < low < high, not "
            f"{beta!r}."
        )
    return float(ends[0]), float(ends[1])


class Gate(nn.Module):
    r"""Rescales units by :math:`2\sigma(w t + b)`, where t is the level of log β; 1 before training.

    Parameters
    ----------
    n_units
        Number of units.
    dial
        Where the gate reads β.

    References
    ----------
    Bae et al. (2023), Multi-rate VAE: train once, get the full rate-distortion curve.

    Examples
    --------
    >>> import torch
    >>> from betavi.nn import Dial, Gate
    >>> dial = Dial((0.1, 10.0))
    >>> gate = Gate(1, dial)
    >>> _ = torch.nn.init.ones_(gate.slope)
    >>> with dial.at(10.0):
    ...     round(gate(torch.ones(1, 1)).item(), 2)
    1.46
    """

    def __init__(self, n_units: int, dial: Dial) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(n_units))
        self.offset = nn.Parameter(torch.zeros(n_units))
        self.dial = dial

    def forward(self, h: Tensor) -> Tensor:
        """Return ``(..., n_units)``, rescaled."""
        return 2 * torch.sigmoid(self.slope * self.dial.level + self.offset) * h


class Shift(nn.Module):
    """Moves and stretches units in proportion to the level of log β, before their activation.

    Parameters
    ----------
    n_units
        Number of units.
    dial
        Where it reads β.

    Examples
    --------
    >>> import torch
    >>> from betavi.nn import Dial, Shift
    >>> dial = Dial((0.1, 10.0))
    >>> shift = Shift(1, dial)
    >>> _ = torch.nn.init.ones_(shift.move)
    >>> with dial.at(10.0):
    ...     round(shift(torch.ones(1, 1)).item(), 2)
    2.0
    """

    def __init__(self, n_units: int, dial: Dial) -> None:
        super().__init__()
        self.stretch = nn.Parameter(torch.zeros(n_units))
        self.move = nn.Parameter(torch.zeros(n_units))
        self.dial = dial

    def forward(self, h: Tensor) -> Tensor:
        """Return ``(..., n_units)``."""
        level = self.dial.level
        return h * (1 + self.stretch * level) + self.move * level


class Turn(nn.Module):
    r"""A linear map that is a quadratic function of the level of log β: zero before training.

    A higher β keeps fewer directions of the latent space. Without a map that can turn with β, those
    directions would have to be the same axes at every β.

    Parameters
    ----------
    n_input, n_output
        Number of units on both sides.
    dial
        Where it reads β.

    Examples
    --------
    >>> import torch
    >>> from betavi.nn import Dial, Turn
    >>> dial = Dial((0.1, 10.0))
    >>> turn = Turn(1, 1, dial)
    >>> _ = torch.nn.init.ones_(turn.linear.weight)
    >>> with dial.at(0.1):
    ...     round(turn(torch.ones(1, 1)).item(), 2)
    -1.0
    """

    def __init__(self, n_input: int, n_output: int, dial: Dial) -> None:
        super().__init__()
        self.linear, self.square = (nn.Linear(n_input, n_output) for _ in range(2))
        for part in (self.linear, self.square):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
        self.dial = dial

    def forward(self, h: Tensor) -> Tensor:
        """Return what is to be added, ``(..., n_output)``."""
        level = self.dial.level
        out: Tensor = level * self.linear(h) + level**2 * self.square(h)
        return out


class Drift(nn.Module):
    """A value per feature that is a quadratic function of the level of log β, zero at first.

    Parameters
    ----------
    n_features
        Number of features.
    dial
        Where it reads β.

    Examples
    --------
    >>> import torch
    >>> from betavi.nn import Dial, Drift
    >>> dial = Dial((0.1, 10.0))
    >>> drift = Drift(2, dial)
    >>> _ = torch.nn.init.ones_(drift.square)
    >>> with dial.at(0.1):
    ...     drift().round().tolist()
    [1.0, 1.0]
    """

    def __init__(self, n_features: int, dial: Dial) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.zeros(n_features))
        self.square = nn.Parameter(torch.zeros(n_features))
        self.dial = dial

    def forward(self) -> Tensor:
        """Return the values, ``(n_features,)``, or ``(n_cells, n_features)`` of several β."""
        level = self.dial.level
        return level * self.linear + level**2 * self.square


def add_gates(layers: FCLayers, dial: Dial) -> None:
    """Let every hidden layer read β: shifted before its activation, gated after it."""
    for block in layers.fc_layers:
        n_units = block[0].out_features
        activations = (i for i, part in enumerate(block) if i and _is_activation(part))
        before_activation = next(activations, len(block))
        block.insert(before_activation, Shift(n_units, dial))
        block.append(Gate(n_units, dial))


def _is_activation(part: nn.Module | None) -> bool:
    return part is not None and not isinstance(part, nn.BatchNorm1d | nn.LayerNorm | nn.Dropout)
