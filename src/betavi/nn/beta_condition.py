"""The β condition of a module, and the layers that depend on it."""

from __future__ import annotations

import math
from contextlib import contextmanager
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from betavi._tables import LARGEST_SINGLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scvi.nn import FCLayers

BEYOND = 2.0
"""Training draws β up to this many times the highest β of the range. Networks are least accurate at
the ends of their training range, most of all at a high β, where dimensions collapse."""

ROUNDING = 1e-6
"""Relative difference up to which two β are equal: rounding of single precision and logarithms."""


class BetaCondition:
    """β of a module, shared by every part that reads it.

    Parameters
    ----------
    beta
        One β, or the lowest and the highest β of a range.

    Raises
    ------
    ValueError
        If β is negative or not finite, or a range (low, high) does not have 0 < low < high.

    Examples
    --------
    >>> from betavi.nn import BetaCondition
    >>> beta_condition = BetaCondition((0.1, 10.0))
    >>> with beta_condition.at(3.0):
    ...     beta_condition.beta, beta_condition.default
    (3.0, 1.0)
    """

    drawn: Tensor | None

    def __init__(self, beta: float | tuple[float, float]) -> None:
        self.range = _checked_range(beta)
        low, high = self.range
        self.is_fixed = low == high
        # the β of the range closest to 1, the β of the ELBO
        self.default = min(max(1.0, low), high)
        self.beta, self.drawn = self.default, None

    @property
    def level(self) -> float | Tensor:
        """Log β, scaled from -1 at the lowest β to 1 at the highest β.

        ``(n_cells, 1)`` for drawn β.
        """
        low, high = map(math.log, self.range)
        log_beta = math.log(self.beta) if self.drawn is None else self.drawn.log()
        return (log_beta - (low + high) / 2) / ((high - low) / 2)

    @property
    def weight(self) -> float | Tensor:
        """Weight of the rate (KL): one number, or ``(n_cells,)`` if a β is drawn for each cell."""
        return self.beta if self.drawn is None else self.drawn.squeeze(1)

    @contextmanager
    def at(self, beta: float) -> Iterator[None]:
        """Use one β for all cells inside a ``with`` block."""
        before = self.beta, self.drawn
        self.beta, self.drawn = beta, None
        try:
            yield
        finally:
            self.beta, self.drawn = before

    @contextmanager
    def drawing(self, n_cells: int, device: torch.device) -> Iterator[None]:
        """Draw a β for each cell of a minibatch inside a ``with`` block, if the model has a range.

        The values of β, ``(n_cells, 1)``, are log-uniform and spread evenly over the minibatch.
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
        """Raise a ValueError if β is outside the range by more than rounding."""
        low, high = self.range
        margin = 1 + ROUNDING
        if not (isinstance(beta, Real) and low / margin <= beta <= high * margin):
            raise ValueError(
                f"beta={beta!r} is outside the range of this model, {low:g} to {high:g}. Choose a β "
                "in the range, or train a model with a wider range."
            )


def _checked_range(beta: float | tuple[float, float]) -> tuple[float, float]:
    is_range = isinstance(beta, tuple | list)
    ends = beta if isinstance(beta, tuple | list) else (beta, beta)
    numbers = all(isinstance(end, Real) and 0 <= end <= LARGEST_SINGLE for end in ends)
    if not numbers or len(ends) != 2 or (is_range and not 0 < ends[0] < ends[1]):
        raise ValueError(
            "`beta` must be a finite number of at least 0, or a pair (low, high) with 0 < low < high, "
            f"not {beta!r}."
        )
    return float(ends[0]), float(ends[1])


class BetaGate(nn.Module):
    r"""Rescale units by :math:`2\sigma(w t + b)`, where t is log β scaled to [-1, 1].

    Before training, the factor is 1.

    Parameters
    ----------
    n_units
        Number of units.
    beta_condition
        β of the module.

    References
    ----------
    Bae et al. (2023), Multi-rate VAE: train once, get the full rate-distortion curve.

    Examples
    --------
    >>> from betavi.nn import BetaCondition, BetaGate
    >>> BetaGate(2, BetaCondition((0.1, 10.0)))(torch.ones(1, 2)).tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, n_units: int, beta_condition: BetaCondition) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(n_units))
        self.offset = nn.Parameter(torch.zeros(n_units))
        self.beta_condition = beta_condition

    def forward(self, h: Tensor) -> Tensor:
        """Return the rescaled units, ``(..., n_units)``."""
        return 2 * torch.sigmoid(self.slope * self.beta_condition.level + self.offset) * h


class BetaFiLM(nn.Module):
    """Shift and scale units before their activation, in proportion to log β scaled to [-1, 1].

    Parameters
    ----------
    n_units
        Number of units.
    beta_condition
        β of the module.

    Examples
    --------
    >>> from betavi.nn import BetaCondition, BetaFiLM
    >>> BetaFiLM(2, BetaCondition((0.1, 10.0)))(torch.ones(1, 2)).tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, n_units: int, beta_condition: BetaCondition) -> None:
        super().__init__()
        self.stretch = nn.Parameter(torch.zeros(n_units))
        self.move = nn.Parameter(torch.zeros(n_units))
        self.beta_condition = beta_condition

    def forward(self, h: Tensor) -> Tensor:
        """Return the changed units, ``(..., n_units)``."""
        level = self.beta_condition.level
        return h * (1 + self.stretch * level) + self.move * level


class BetaLinear(nn.Module):
    """Linear map whose weights are quadratic functions of log β. Zero before training.

    A higher β leaves fewer active directions in the latent space. The map lets these directions
    rotate with β.

    Parameters
    ----------
    n_input
        Number of input units.
    n_output
        Number of output units.
    beta_condition
        β of the module.

    Examples
    --------
    >>> from betavi.nn import BetaCondition, BetaLinear
    >>> BetaLinear(2, 3, BetaCondition((0.1, 10.0)))(torch.ones(1, 2)).tolist()
    [[0.0, 0.0, 0.0]]
    """

    def __init__(self, n_input: int, n_output: int, beta_condition: BetaCondition) -> None:
        super().__init__()
        self.linear, self.square = (nn.Linear(n_input, n_output) for _ in range(2))
        for part in (self.linear, self.square):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
        self.beta_condition = beta_condition

    def forward(self, h: Tensor) -> Tensor:
        """Return the change of the output, ``(..., n_output)``."""
        level = self.beta_condition.level
        return level * self.linear(h) + level**2 * self.square(h)


class BetaBias(nn.Module):
    """Bias per feature, a quadratic function of log β. Zero before training.

    Parameters
    ----------
    n_features
        Number of features.
    beta_condition
        β of the module.

    Examples
    --------
    >>> from betavi.nn import BetaCondition, BetaBias
    >>> BetaBias(2, BetaCondition((0.1, 10.0)))().tolist()
    [0.0, 0.0]
    """

    def __init__(self, n_features: int, beta_condition: BetaCondition) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.zeros(n_features))
        self.square = nn.Parameter(torch.zeros(n_features))
        self.beta_condition = beta_condition

    def forward(self) -> Tensor:
        """Return the biases, ``(n_features,)``, or ``(n_cells, n_features)`` if β is drawn."""
        level = self.beta_condition.level
        return level * self.linear + level**2 * self.square


def condition_on_beta(layers: FCLayers, beta_condition: BetaCondition) -> None:
    """Condition every hidden layer on β: BetaFiLM before its activation, BetaGate after it."""
    for block in layers.fc_layers:
        n_units = block[0].out_features
        activations = (i for i, part in enumerate(block) if i and _is_activation(part))
        before_activation = next(activations, len(block))
        block.insert(before_activation, BetaFiLM(n_units, beta_condition))
        block.append(BetaGate(n_units, beta_condition))


def _is_activation(part: nn.Module | None) -> bool:
    return part is not None and not isinstance(part, nn.BatchNorm1d | nn.LayerNorm | nn.Dropout)
