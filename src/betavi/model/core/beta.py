"""Getters that answer at any β of a model of many, once it is trained."""

from __future__ import annotations

import inspect
import math
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from scvi.model.base import BaseModelClass, VAEMixin

from betavi.model.setup.asked import read
from betavi.nn import ROUNDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GETTERS = (
    "archetype",
    "denoise",
    "differential_abundance",
    "differential_expression",
    "find_holes",
    "generate",
    "get_aggregated_posterior",
    "get_elbo",
    "get_feature_correlation_matrix",
    "get_importance_weights",
    "get_latent_library_size",
    "get_latent_representation",
    "get_likelihood_parameters",
    "get_marginal_ll",
    "get_normalized_accessibility",
    "get_normalized_expression",
    "get_protein_foreground_probability",
    "get_reconstruction_error",
    "interpolate",
    "latent_density",
    "posterior_predictive_sample",
    "predictability",
    "score_counts",
    "support",
    "translate",
)
"""The methods that encode or decode."""

MINIFIED_BETA = "minified_beta"
"""Where ``uns["betavi"]`` of a minified object says of which β its posteriors are."""

_DOCUMENTATION = """
Other Parameters
----------------
beta
    The β to answer at, of a model trained on a range of them; 1, or the end of the range closest
    to it, if None.
"""

Model = TypeVar("Model", bound="AtBetaMixin")


class AtBetaMixin(VAEMixin, BaseModelClass):
    """Lets a block of a model's methods answer at another β."""

    @contextmanager
    def _at(self, beta: float | None) -> Iterator[None]:
        """Set the module to a β for a while; if None, to that of minified posteriors if there are.

        Raises
        ------
        ValueError
            If the model was not trained at it, or its object holds posteriors at another β only.
        """
        if getattr(self, "minified_data_type", None) is not None:
            stored = self.adata.uns.get("betavi", {}).get(MINIFIED_BETA, self.module.settled_beta)
            beta = stored if beta is None else beta
            if not math.isclose(beta, stored, rel_tol=ROUNDING):
                raise ValueError(
                    f"The object is minified: its posteriors are those at beta={stored:g}. Others "
                    "are inferred from an object that is not: load(..., adata=...)."
                )
        if beta is not None:
            self.module.check_beta(beta)
        if beta is None or self.module.dial.is_fixed:
            yield
            return
        with self.module.dial.at(float(beta)):
            yield


def checked_at_any_beta(cls: type[Model]) -> type[Model]:
    """Give every getter the argument ``beta``, and have it refuse an untrained model or unknown cells."""
    for name in GETTERS:
        if hasattr(cls, name):
            setattr(cls, name, _at_any_beta(getattr(cls, name)))
    return cls


def _at_any_beta(getter: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(getter)

    @wraps(getter)
    def answer(self: AtBetaMixin, *args: Any, beta: float | None = None, **kwargs: Any) -> Any:
        self._check_if_trained(warn=False)
        asked = signature.bind(self, *args, **kwargs)
        asked.arguments.update(read(self, asked.arguments))
        with self._at(beta):
            return getter(*asked.args, **asked.kwargs)

    parameters = list(signature.parameters.values())
    keyword = inspect.Parameter("beta", inspect.Parameter.KEYWORD_ONLY, default=None)
    last = parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    parameters.insert(len(parameters) - last, keyword)
    answer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
    answer.__doc__ = f"{inspect.getdoc(getter) or ''}\n{_DOCUMENTATION}"
    return answer
