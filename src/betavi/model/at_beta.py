"""Getters that answer at any β of a model of many."""

from __future__ import annotations

import inspect
import math
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


class AtBetaMixin(BaseMinifiedModeModelClass):
    """Lets a block of a model's methods answer at another β."""

    def minify_adata(self, *args: Any, beta: float | None = None, **kwargs: Any) -> None:
        """Keep posteriors in the place of counts, as scvi-tools does.

        Parameters
        ----------
        *args, **kwargs
            ``minified_data_type`` and the keys of ``obsm``: see
            :meth:`scvi.model.base.BaseMinifiedModeModelClass.minify_adata`.
        beta
            The β that the posteriors in ``obsm`` are of, which is what every getter answers at from
            then on; 1, or the end of the range closest to it, if None.

        Raises
        ------
        ValueError
            If the model was not trained at that β, or infers library sizes.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, beta=(0.1, 10))
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> posteriors = model.get_latent_representation(return_dist=True, beta=4.0)
        >>> adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = posteriors
        >>> model.minify_adata(beta=4.0)
        >>> model.adata.X.nnz
        0
        """
        dial = self.module.dial
        if beta is not None:
            dial.check(beta)
        super().minify_adata(*args, **kwargs)
        stored = {MINIFIED_BETA: dial.beta if beta is None else float(beta)}
        self.adata.uns["betavi"] = self.adata.uns.get("betavi", {}) | stored

    @contextmanager
    def _at(self, beta: float | None) -> Iterator[None]:
        """Set the module to a β for a while; if None, to that of minified posteriors if there are.

        Raises
        ------
        ValueError
            If the model was not trained at it, or its object holds posteriors at another β only.
        """
        dial = self.module.dial
        if self.minified_data_type is not None:
            stored = self.adata.uns.get("betavi", {}).get(MINIFIED_BETA, dial.beta)
            beta = stored if beta is None else beta
            if not math.isclose(beta, stored, rel_tol=1e-6):
                raise ValueError(
                    f"The object is minified: its posteriors are those at beta={stored:g}, and the "
                    "counts that others would be inferred from are gone."
                )
        if beta is None:
            yield
            return
        dial.check(beta)
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
