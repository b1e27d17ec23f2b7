"""Effects of perturbations in a decoder: their design, and an output layer that adds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from betavi.data.conditions import Conditions
    from betavi.kernels.layers import TransposedLinear

BASE, MAIN, INTERACTION, DEVIATION = -1, 0, 1, 2
"""Kinds of effects: of base levels, perturbations, pairs, and of perturbations in a context."""


class EffectDesign(nn.Module):
    """Design of the effects: how much of each effect a cell has.

    Columns are the perturbations, the measured pairs and, if there are several contexts, the
    perturbations in each context. The value of a perturbation is its dose curve at the cell's dose,
    from 0 to 1, or 1 without doses. The value of a pair is the product of both.

    Parameters
    ----------
    conditions
        Names and codes of the conditions.

    Examples
    --------
    >>> from betavi.data.conditions import Conditions
    >>> design = EffectDesign(Conditions.of_names(["A", "A+B", "B", "control"], "control"))
    >>> design(torch.tensor([1, 3])).tolist()
    [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """

    parts: Tensor
    pairs: Tensor
    doses: Tensor | None
    log_ec50: Tensor
    slope: Tensor

    def __init__(self, conditions: Conditions) -> None:
        super().__init__()
        self.n_contexts = len(conditions.contexts)
        n_perturbations, has_doses = len(conditions.perturbations), conditions.doses is not None
        self.register_buffer("parts", torch.as_tensor(conditions.parts), persistent=False)
        self.register_buffer("pairs", torch.as_tensor(conditions.pairs), persistent=False)
        doses = torch.as_tensor(conditions.doses, dtype=torch.float32) if has_doses else None
        self.register_buffer("doses", doses, persistent=False)
        # curves that are full at every dose until they are fitted
        self.register_buffer("log_ec50", torch.full((n_perturbations,), -torch.inf))
        self.register_buffer("slope", torch.ones(n_perturbations))

    @property
    def kinds(self) -> Tensor:
        """Kind of each column, ``(n_columns,)``."""
        n_perturbations = len(self.slope)
        n_deviations = n_perturbations * self.n_contexts if self.n_contexts > 1 else 0
        sizes = {
            MAIN: n_perturbations,
            INTERACTION: len(self.pairs),
            DEVIATION: n_deviations,
        }
        return torch.cat([torch.full((size,), kind) for kind, size in sizes.items()])

    def set_curves(self, log_ec50: np.ndarray, slope: np.ndarray) -> None:
        """Set the half-effective doses, on a log scale, and the slopes, ``(n_perturbations,)``."""
        self.log_ec50.copy_(torch.as_tensor(log_ec50))
        self.slope.copy_(torch.as_tensor(slope))

    def row(
        self,
        parts: Sequence[int] | np.ndarray,
        doses: Sequence[float] | np.ndarray | None,
        context: int,
    ) -> np.ndarray:
        """Return the values of the effects of one condition, ``(n_columns,)``.

        ``parts`` are codes of perturbations, ``doses`` their doses, and ``context`` is a code.
        """
        levels = torch.zeros(1, len(self.slope))
        if len(parts):
            codes = torch.as_tensor(parts, dtype=torch.int64)[None]
            given = None if doses is None else torch.as_tensor(doses, dtype=torch.float32)[None]
            levels = self.levels(codes, given)
        found: np.ndarray = self.rows(levels, torch.tensor([context]))[0].double().numpy()
        return found

    def full_row(self, part: int, context: int) -> np.ndarray:
        """Return the values of the effects of one perturbation at its full effect, ``(n_columns,)``."""
        levels = torch.eye(len(self.slope))[[part]]
        found: np.ndarray = self.rows(levels, torch.tensor([context]))[0].double().numpy()
        return found

    def levels(self, parts: Tensor, doses: Tensor | None) -> Tensor:
        """Return the values of the perturbations, ``(n_cells, n_perturbations)``.

        ``parts`` are codes, -1 for none, and ``doses`` their doses, both ``(n_cells, most_parts)``.
        """
        values = torch.ones_like(parts, dtype=torch.float32)
        if doses is not None:
            log_ratio = doses.log() - self.log_ec50[parts.clamp_min(0)]
            # the sigmoid of a product with infinity is 1; a dose of 0 has no effect
            curve = torch.sigmoid(self.slope[parts.clamp_min(0)] * log_ratio)
            values = curve.where(doses > 0, 0.0)
        values = values.where(parts >= 0, 0.0)
        levels = values.new_zeros(len(parts), len(self.slope))
        return levels.scatter_add_(1, parts.clamp_min(0), values)

    def rows(self, levels: Tensor, context: Tensor) -> Tensor:
        """Return the design of cells with these values and contexts, ``(n_cells, n_columns)``."""
        products = levels[:, self.pairs[:, 0]] * levels[:, self.pairs[:, 1]]
        columns = [levels, products]
        if self.n_contexts > 1:
            contexts = nn.functional.one_hot(context, self.n_contexts).to(levels)
            columns.append((contexts[:, :, None] * levels[:, None, :]).flatten(1))
        return torch.cat(columns, dim=1)

    def forward(
        self,
        condition: Tensor,
        dose: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Return the design of cells with these codes, each ``(n_cells,)``."""
        condition = condition.long()
        doses = None if dose is None or self.doses is None else self.doses[dose.long()]
        context = torch.zeros_like(condition) if context is None else context.long()
        return self.rows(self.levels(self.parts[condition], doses), context)


class EffectHead(nn.Module):
    """Output layer that adds fixed effects of a design to the outputs of a linear layer.

    Its input is the decoder's last hidden layer, followed by the design. Effects are not trained by
    gradients.

    Parameters
    ----------
    layer
        Output layer without effects.
    n_columns
        Number of columns of the design.

    Examples
    --------
    >>> from betavi.kernels.layers import TransposedLinear
    >>> head = EffectHead(TransposedLinear(4, 3), n_columns=2)
    >>> head(torch.zeros(1, 6)).shape
    torch.Size([1, 3])
    """

    effects: Tensor

    def __init__(self, layer: TransposedLinear, n_columns: int) -> None:
        super().__init__()
        self.state = layer
        self.register_buffer("effects", torch.zeros(n_columns, layer.out_features))

    @property
    def weight(self) -> Tensor:
        """Weights of the hidden layer and of the design, ``(n_features, n_hidden + n_columns)``."""
        return torch.cat([self.state.weight.t(), self.effects.to(self.state.weight)]).t()

    @property
    def bias(self) -> Tensor:
        """Constant of each feature, ``(n_features,)``."""
        return self.state.bias

    def forward(self, h: Tensor) -> Tensor:
        """Return ``(..., n_features)``."""
        return linear(h, self.weight, self.bias)


class EffectStatistics(nn.Module):
    """Stored posterior of the effects. The sizes of its arrays are known only after training.

    Parameters
    ----------
    names
        Names of the arrays, for queries of models that have them.

    Examples
    --------
    >>> statistics = EffectStatistics(["rows"])
    >>> statistics.store({"rows": torch.ones(2, 3)})
    >>> statistics.get("rows").shape
    torch.Size([2, 3])
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        super().__init__()
        for name in names:
            # scvi-tools pads the dimensions of a query's arrays, and these have none
            self.register_buffer(name, torch.zeros(()))

    def store(self, arrays: dict[str, Tensor]) -> None:
        """Store arrays by name, in place of earlier ones."""
        for name, array in arrays.items():
            self.register_buffer(name, array)

    @property
    def is_stored(self) -> bool:
        """True after :meth:`store`."""
        return any(array.ndim for array in self.buffers())

    def get(self, name: str) -> Tensor:
        """Return a stored array. Raise a KeyError for other names."""
        found = self._buffers.get(name)
        if found is None or not found.ndim:
            raise KeyError(name)
        return found

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        stored = {
            name.removeprefix(prefix): value
            for name, value in state_dict.items()
            if name.startswith(prefix)
        }
        # arrays of an earlier estimate would not belong to the loaded ones
        self._buffers.clear()
        self.store({name: torch.empty_like(value) for name, value in stored.items()})
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
