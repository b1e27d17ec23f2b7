"""Getters that answer at any β of a model of many."""

from __future__ import annotations

import inspect
import math
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scvi.data._constants import ADATA_MINIFY_TYPE
from scvi.model.base import BaseMinifiedModeModelClass, VAEMixin

from betavi.nn import ROUNDING

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

N_COMPARED = 100
"""Cells whose posteriors are inferred once more before they take the place of counts."""

_DOCUMENTATION = """
Other Parameters
----------------
beta
    The β to answer at, of a model trained on a range of them; 1, or the end of the range closest
    to it, if None.
"""

Model = TypeVar("Model", bound="AtBetaMixin")


class AtBetaMixin(VAEMixin, BaseMinifiedModeModelClass):
    """Lets a block of a model's methods answer at another β."""

    def minify_adata(
        self,
        minified_data_type: str = ADATA_MINIFY_TYPE.LATENT_POSTERIOR,
        use_latent_qzm_key: str = "X_latent_qzm",
        use_latent_qzv_key: str = "X_latent_qzv",
        beta: float | None = None,
    ) -> None:
        """Keep posteriors in the place of counts, as scvi-tools does.

        Parameters
        ----------
        minified_data_type, use_latent_qzm_key, use_latent_qzv_key
            See :meth:`scvi.model.base.BaseMinifiedModeModelClass.minify_adata`.
        beta
            The β that the posteriors in ``obsm`` are of, which is what every getter answers at from
            then on; 1, or the end of the range closest to it, if None.

        Raises
        ------
        ValueError
            If the model was not trained at that β, infers library sizes, or, being one of many β,
            finds other posteriors than those in ``obsm``.

        Examples
        --------
        >>> import betavi, logging, scvi
        >>> scvi.settings.verbosity = logging.WARNING
        >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, beta=(0.1, 10))
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> posteriors = model.get_latent_representation(return_dist=True, beta=4.0)
        >>> adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = posteriors
        >>> model.minify_adata(beta=4.0)
        >>> float(model.adata.X.sum())
        0.0
        """
        beta = self.module.settled_beta if beta is None else float(beta)
        self.module.check_beta(beta)
        if not self.module.dial.is_fixed:
            self._check_posteriors(use_latent_qzm_key, beta)
        super().minify_adata(minified_data_type, use_latent_qzm_key, use_latent_qzv_key)
        self.adata.uns["betavi"] = self.adata.uns.get("betavi", {}) | {MINIFIED_BETA: beta}

    def _check_posteriors(self, key: str, beta: float) -> None:
        """Compare the posteriors of a few cells with those at β."""
        some = np.arange(min(N_COMPARED, self.adata.n_obs))
        with self._at(beta):
            found, _ = self.get_latent_representation(indices=some, return_dist=True)
        if not np.allclose(found, np.asarray(self.adata.obsm[key])[some], rtol=1e-3, atol=1e-3):
            raise ValueError(
                f"adata.obsm[{key!r}] holds other posteriors than this model has at beta={beta:g}. "
                "Say which β they are of, minify_adata(beta=...), or infer them again: "
                "get_latent_representation(return_dist=True, beta=...)."
            )

    @contextmanager
    def _at(self, beta: float | None) -> Iterator[None]:
        """Set the module to a β for a while; if None, to that of minified posteriors if there are.

        Raises
        ------
        ValueError
            If the model was not trained at it, or its object holds posteriors at another β only.
        """
        if self.minified_data_type is not None:
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
