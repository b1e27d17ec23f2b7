"""Getters that answer at any β of a model of many."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from scvi.model.base import BaseMinifiedModeModelClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GETTERS = (
    "differential_abundance",
    "differential_expression",
    "get_aggregated_posterior",
    "get_elbo",
    "get_feature_correlation_matrix",
    "get_importance_weights",
    "get_latent_library_size",
    "get_latent_representation",
    "get_likelihood_parameters",
    "get_marginal_ll",
    "get_normalized_expression",
    "get_reconstruction_error",
    "posterior_predictive_sample",
    "score_counts",
)
"""The methods that encode or decode."""

_DOCUMENTATION = """
Other Parameters
----------------
beta
    The β to answer at, of a model trained on a range of them; 1, or the end of the range closest
    to it, if None.
"""

Model = TypeVar("Model", bound="AtBetaMixin")


class AtBetaMixin(BaseMinifiedModeModelClass):
    """Lets a block of a model's methods answer at another β."""

    @contextmanager
    def _at(self, beta: float | None) -> Iterator[None]:
        """Set the module to a β for a while; leave it as it is if None.

        Raises
        ------
        ValueError
            If the model was not trained at it, or its object holds posteriors at another β only.
        """
        if beta is None:
            yield
            return
        dial = self.module.dial
        dial.check(beta)
        if self.minified_data_type is not None and beta != dial.beta:
            raise ValueError(
                f"The object is minified: its posteriors are those at beta={dial.beta:g}, and the "
                "counts that others would be inferred from are gone."
            )
        with dial.at(float(beta)):
            yield


def takes_beta(cls: type[Model]) -> type[Model]:
    """Give every getter of a model class the argument ``beta``."""
    for name in GETTERS:
        setattr(cls, name, _at_any_beta(getattr(cls, name)))
    return cls


def _at_any_beta(getter: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(getter)
    def answer(self: AtBetaMixin, *args: Any, beta: float | None = None, **kwargs: Any) -> Any:
        with self._at(beta):
            return getter(self, *args, **kwargs)

    parameters = list(inspect.signature(getter).parameters.values())
    keyword = inspect.Parameter("beta", inspect.Parameter.KEYWORD_ONLY, default=None)
    last = parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    parameters.insert(len(parameters) - last, keyword)
    answer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
    answer.__doc__ = f"{inspect.getdoc(getter) or ''}\n{_DOCUMENTATION}"
    return answer
