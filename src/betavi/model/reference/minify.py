"""Posteriors in the place of counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scvi.data._constants import ADATA_MINIFY_TYPE

from betavi.model.core.beta import MINIFIED_BETA
from betavi.model.reference.minified import MinifiedMixin

if TYPE_CHECKING:
    from anndata import AnnData

N_COMPARED = 100
"""Cells whose posteriors are inferred once more before they take the place of counts."""


class MinifyMixin(MinifiedMixin):
    """scvi-tools' minified mode, which knows of which β the posteriors are."""

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

    def _update_adata_and_manager_post_minification(
        self, minified_adata: AnnData, minified_data_type: str
    ) -> None:
        fields = self._get_fields_for_adata_minification(minified_data_type)
        self._take_minified(minified_adata, fields)

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
