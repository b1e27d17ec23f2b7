"""Adam and AdamW that update parameters in one pass over memory."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor


class _InMemoryOrder(torch.optim.Optimizer):
    """Optimiser that reads parameters in the order of memory.

    A fused optimiser on a CPU copies parameters in another order, such as the transposed weights of
    :class:`betavi.kernels.layers.CountsLinear`.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step, after the closure if there is one."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        parameters = [p for group in self.param_groups for p in group["params"]]
        chosen = [p for p in parameters if p.grad is not None and _lies_transposed(p)]
        with _transposed(chosen, self.state):
            _without_hooks(super().step)()
        return loss


class Adam(_InMemoryOrder, torch.optim.Adam):
    """Adam, as in PyTorch."""


class AdamW(_InMemoryOrder, torch.optim.AdamW):
    """AdamW, as in PyTorch."""


ORDERED: dict[type[torch.optim.Adam], type[torch.optim.Adam]] = {
    torch.optim.Adam: Adam,
    torch.optim.AdamW: AdamW,
}
"""Optimisers with one pass over memory, by PyTorch's class."""


def _lies_transposed(parameter: Tensor) -> bool:
    is_matrix = parameter.device.type == "cpu" and parameter.ndim == 2
    return is_matrix and not parameter.is_contiguous() and parameter.t().is_contiguous()


def _without_hooks(step: Any) -> Any:
    """Return a step without its hooks, which the calling step runs itself."""
    if not getattr(step, "hooked", False):
        return step
    return partial(step.__wrapped__, step.__self__)


@contextmanager
def _transposed(parameters: list[Tensor], state: dict[Tensor, Any]) -> Iterator[None]:
    """Transpose parameters and their state in a ``with`` block, in the same memory."""
    _transpose(parameters, state)
    for parameter in parameters:
        for key, value in state.get(parameter, {}).items():
            # a loaded state may have another optimiser's layout
            state[parameter][key] = value.contiguous()
    try:
        yield
    finally:
        _transpose(parameters, state)


def _transpose(parameters: list[Tensor], state: dict[Tensor, Any]) -> None:
    for parameter in parameters:
        gradient, parameter.grad = parameter.grad, None
        parameter.data = parameter.data.t()
        parameter.grad = None if gradient is None else gradient.t()
        for key, value in state.get(parameter, {}).items():
            if value.ndim == 2:
                state[parameter][key] = value.t()
