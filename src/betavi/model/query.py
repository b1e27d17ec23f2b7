"""Query mapping: new cells onto a trained model."""

from __future__ import annotations

from typing import Any, Self

from scvi.model.base import ArchesMixin


class QueryMixin(ArchesMixin):
    """scvi-tools' scArches, which trains what a query adds to a model and freezes the rest."""

    @classmethod
    def load_query_data(cls, *args: Any, **kwargs: Any) -> Self:
        """Return a model of query cells that shares the reference's weights.

        Parameters
        ----------
        *args, **kwargs
            ``adata``, ``reference_model`` (a model or a path) and the options of
            :meth:`scvi.model.base.ArchesMixin.load_query_data`. Genes are made to fit with
            :meth:`prepare_query_anndata` first.

        Returns
        -------
        A model that :meth:`train` teaches the query's new categories only: their weights in the
        networks or, with ``batch_representation="embedding"``, their rows of the embedding.

        References
        ----------
        Lotfollahi et al. (2022), Mapping single-cell data to reference atlases by transfer learning.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata, batch_key="batch")
        >>> model = betavi.BetaVI(adata)
        >>> query = betavi.datasets.simulate_counts(n_cells=100, n_genes=20, seed=1)
        >>> query.obs["batch"] = "new"
        >>> betavi.BetaVI.load_query_data(query, model).summary_stats.n_batch
        3
        """
        model = super().load_query_data(*args, **kwargs)
        # scvi-tools 1.4 freezes embeddings too, and a new batch would stay where it was drawn.
        # Rows of batches that the query has no cells of get no gradient.
        for parameter in model.module.embeddings_dict.parameters():
            parameter.requires_grad_(True)
        return model
