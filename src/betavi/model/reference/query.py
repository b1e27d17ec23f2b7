"""Query mapping: new cells onto a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.model.base import ArchesMixin
from scvi.model.base._archesmixin import _get_loaded_data

from betavi.model.setup.check_counts import check_is_anndata
from betavi.nn import Drift, Gate, Shift, Turn

if TYPE_CHECKING:
    from scvi.model.base import BaseModelClass


READS_BETA = (Drift, Gate, Shift, Turn)
"""What answers to β stays the reference's."""


def thaw(model: BaseModelClass, unfrozen: bool) -> None:
    """Say of what scvi-tools does not know whether it is trained on a query.

    Parameters
    ----------
    model
        As scvi-tools left it.
    unfrozen
        Whether everything is trained.
    """
    # scvi-tools 1.4 freezes embeddings too, and a new batch would stay where it was drawn.
    # Rows of batches that the query has no cells of get no gradient.
    for parameter in model.module.embeddings_dict.parameters():
        parameter.requires_grad_(True)
    # what would be trained by the name of the layer it is in
    for part in model.module.modules():
        if isinstance(part, READS_BETA):
            part.requires_grad_(unfrozen)


def attributes_of(model: str | BaseModelClass | None) -> dict[str, Any]:
    """Return what is known of a reference, or of one in a folder: its registry, whether it is trained."""
    attributes: dict[str, Any] = _get_loaded_data(model, device="cpu")[0]
    return attributes


def answer_if_nothing_is_new(
    model: BaseModelClass, reference: dict[str, Any], unfrozen: bool
) -> None:
    """Let a query answer without training where it has nothing to learn.

    Parameters
    ----------
    model
        As scvi-tools left it, untrained.
    reference
        Attributes of its reference, whose weights then answer.
    unfrozen
        Whether everything is to be trained.
    """
    is_known = _categories(model.registry_) == _categories(reference["registry_"])
    model.is_trained_ = reference["is_trained_"] and is_known and not unfrozen


def _categories(registry: dict[str, Any]) -> list[Any]:
    states = {name: field["state_registry"] for name, field in registry["field_registries"].items()}
    one = [
        list(states[key]["categorical_mapping"])
        for key in (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY)
        if key in states
    ]
    several = states.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("n_cats_per_key", [])
    return [*one, list(several)]


class QueryMixin(ArchesMixin):
    """scvi-tools' scArches, which trains what a query adds to a model and freezes the rest."""

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData | None = None,
        reference_model: str | BaseModelClass | None = None,
        registry: dict[str, Any] | None = None,
        inplace_subset_query_vars: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Return a model of query cells that shares the reference's weights.

        Parameters
        ----------
        adata
            Query cells, whose genes :meth:`prepare_query_anndata` made fit.
        reference_model
            The model to map onto, or the folder it was saved to.
        registry
            The registry of a datamodule, in place of ``adata``.
        inplace_subset_query_vars
            Drop the genes that the reference has not, and sort the others, in ``adata`` itself.
        **kwargs
            What to freeze, and the device: see
            :meth:`scvi.model.base.ArchesMixin.load_query_data`.

        Returns
        -------
        A model that :meth:`train` teaches the query's new categories only: their weights in the
        networks or, with ``batch_representation="embedding"``, their rows of the embedding. If there
        are none, it answers at once.

        Raises
        ------
        TypeError
            If ``adata`` is no AnnData.
        ValueError
            If its genes are not the reference's, or its counts are none.

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
        if adata is not None:
            check_is_anndata(adata)
        reference = attributes_of(reference_model)
        model = super().load_query_data(
            adata, reference_model, registry, inplace_subset_query_vars, **kwargs
        )
        thaw(model, bool(kwargs.get("unfrozen")))
        if adata is not None:
            answer_if_nothing_is_new(model, reference, bool(kwargs.get("unfrozen")))
        return model

    @staticmethod
    def prepare_query_anndata(adata: AnnData, *args: Any, **kwargs: Any) -> Any:
        """Sort the genes of query cells as the reference's, and add those it lacks as zeros.

        Parameters
        ----------
        adata
            Query cells.
        *args, **kwargs
            ``reference_model``, ``return_reference_var_names`` and ``inplace``: see
            :meth:`scvi.model.base.ArchesMixin.prepare_query_anndata`.

        Returns
        -------
        Nothing if in place, the new object, or the names of the reference's genes.

        Raises
        ------
        TypeError
            If ``adata`` is no AnnData.

        Examples
        --------
        >>> from contextlib import redirect_stdout
        >>> from io import StringIO
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata)
        >>> query = betavi.datasets.simulate_counts(n_cells=50, n_genes=18, seed=1)
        >>> with redirect_stdout(StringIO()):  # scvi-tools prints how many genes it found
        ...     betavi.BetaVI.prepare_query_anndata(query, model)
        >>> query.shape
        (50, 20)
        """
        check_is_anndata(adata)
        said = adata.uns.get("betavi")
        found = ArchesMixin.prepare_query_anndata(adata, *args, **kwargs)
        # padding drops uns, which says where the counts are
        for prepared in (adata, found):
            if said is not None and isinstance(prepared, AnnData):
                prepared.uns["betavi"] = said
        return found
