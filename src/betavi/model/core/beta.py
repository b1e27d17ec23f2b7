"""The argument ``beta`` of the models' methods."""

from __future__ import annotations

import inspect
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar

from betavi.model.setup.selection import read_selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from betavi.model.core.latent_model import LatentModel

R = TypeVar("R")

_DOCUMENTATION = """
Other Parameters
----------------
beta
    The β to use, for a model trained on a range of β. None uses the β of the range closest to 1.
"""


def takes_beta(getter: Callable[..., R], *, allow_untrained: bool = False) -> Callable[..., R]:
    """Add the argument ``beta`` to a function of a model, and convert ``indices`` to positions.

    The function runs in evaluation mode. It raises a RuntimeError if the model is not trained.

    Parameters
    ----------
    getter
        A function whose first argument is the model.
    allow_untrained
        Warn instead of raising an error if the model is not trained, as SCVI does.

    Returns
    -------
    The function with one more keyword argument, ``beta``.

    Examples
    --------
    >>> import betavi
    >>> from betavi.model.core.beta import takes_beta
    >>> @takes_beta
    ... def n_latent(model):
    ...     return model.get_latent_representation().shape[1]
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=5, beta=(0.1, 10))
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> n_latent(model, beta=3.0)
    5
    """
    signature = inspect.signature(getter)

    @wraps(getter)
    def at_beta(model: LatentModel, *args: Any, beta: float | None = None, **kwargs: Any) -> R:
        model._check_if_trained(warn=allow_untrained)
        call = signature.bind(model, *args, **kwargs)
        call.arguments.update(read_selection(model, call.arguments))
        # in training mode, dropout and batch statistics would change the results
        model.module.eval()
        with model.at_beta(beta):
            return getter(*call.args, **call.kwargs)

    parameters = list(signature.parameters.values())
    keyword = inspect.Parameter("beta", inspect.Parameter.KEYWORD_ONLY, default=None)
    has_kwargs = parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    parameters.insert(len(parameters) - has_kwargs, keyword)
    at_beta.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
    at_beta.__doc__ = f"{inspect.getdoc(getter) or ''}\n{_DOCUMENTATION}"
    return at_beta


scvi_getter = partial(takes_beta, allow_untrained=True)
"""Decorator of methods that SCVI has too; like SCVI's, they only warn if the model is untrained."""
