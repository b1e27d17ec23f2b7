"""The argument ``beta`` of the models' methods."""

from __future__ import annotations

import inspect
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar

from betavi.model.setup.arguments import check_arguments, check_surroundings
from betavi.model.setup.registered import untouched_on_failure
from betavi.model.setup.selection import selected_cells

if TYPE_CHECKING:
    from collections.abc import Callable

    from betavi.model.core.latent_model import LatentModel

R = TypeVar("R")

_DOCUMENTATION = """
Other Parameters
----------------
beta
    Only for a model trained on a range of β: the β to use. If None, the β of the range that is
    closest to 1.
"""


def takes_beta(getter: Callable[..., R], *, allow_untrained: bool = False) -> Callable[..., R]:
    """Add the argument ``beta`` to a function whose first argument is the model.

    Before the function runs, the module is set to this β and to evaluation mode, and cells in
    ``indices`` are converted to positions. For an untrained model, the function raises a
    RuntimeError. With ``allow_untrained=True``, it only warns. ``docs/extending.md`` has an
    example.
    """
    signature = inspect.signature(getter)

    @wraps(getter)
    def at_beta(model: LatentModel, *args: Any, beta: float | None = None, **kwargs: Any) -> R:
        model._check_if_trained(warn=allow_untrained)
        call = signature.bind(model, *args, **kwargs)
        check_surroundings()
        check_arguments({"beta": beta, **call.arguments}, signature.parameters)
        if (adata := call.arguments.get("adata")) is not None:
            model.adapter.check_kind(adata)
        if (indices := call.arguments.get("indices")) is not None:
            call.arguments["indices"] = selected_cells(model, call.arguments.get("adata"), indices)
        dataset = getattr(call.arguments.get("dataloader"), "dataset", None)
        if (cells := getattr(dataset, "adata_manager", None)) is not None:
            model.check_same_fields(cells)
        # in training mode, dropout and batch statistics would change the results
        model.module.eval()
        with model.at_beta(beta), untouched_on_failure(call.arguments.get("adata")):
            return getter(*call.args, **call.kwargs)

    parameters = list(signature.parameters.values())
    keyword = inspect.Parameter("beta", inspect.Parameter.KEYWORD_ONLY, default=None)
    has_kwargs = parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    parameters.insert(len(parameters) - has_kwargs, keyword)
    at_beta.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
    at_beta.__doc__ = f"{inspect.getdoc(getter) or ''}\n{_DOCUMENTATION}"
    return at_beta


scvi_getter = partial(takes_beta, allow_untrained=True)
"""Decorator of methods that SCVI has too. As in SCVI, they only warn if the model is untrained."""
