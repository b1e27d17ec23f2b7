"""The argument ``beta=`` of a model's functions."""

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
    The β to answer at, for a model trained on a range of them. If None, 1 or the end of the range
    closest to it.
"""


def takes_beta(getter: Callable[..., R], *, answers_untrained: bool = False) -> Callable[..., R]:
    """Give a function of a model the argument ``beta=``, and read its selection of cells.

    Parameters
    ----------
    getter
        A function whose first argument is the model. It gets cells as positions.
    answers_untrained
        Warn, as SCVI does, instead of refusing, if the model is not trained.

    Returns
    -------
    The function with one more keyword, ``beta``.

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
    def answer(model: LatentModel, *args: Any, beta: float | None = None, **kwargs: Any) -> R:
        model._check_if_trained(warn=answers_untrained)
        call = signature.bind(model, *args, **kwargs)
        call.arguments.update(read_selection(model, call.arguments))
        # in training mode an untrained model would drop units and learn statistics of what it reads
        model.module.eval()
        with model.at_beta(beta):
            return getter(*call.args, **call.kwargs)

    parameters = list(signature.parameters.values())
    keyword = inspect.Parameter("beta", inspect.Parameter.KEYWORD_ONLY, default=None)
    last = parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    parameters.insert(len(parameters) - last, keyword)
    answer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
    answer.__doc__ = f"{inspect.getdoc(getter) or ''}\n{_DOCUMENTATION}"
    return answer


scvi_getter = partial(takes_beta, answers_untrained=True)
"""For functions that SCVI has too, which warn and answer if the model is not trained."""
