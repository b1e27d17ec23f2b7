"""Models that map query cells onto a reference."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from scvi import REGISTRY_KEYS
from scvi.model.base import ArchesMixin
from scvi.model.base._archesmixin import _get_loaded_data

from betavi.model.io.loading import opened
from betavi.model.setup.arguments import check_arguments
from betavi.model.setup.check_depth import warn_deep_cells
from betavi.model.setup.messages import name_some
from betavi.nn import BetaBias, BetaFiLM, BetaGate, BetaLinear

if TYPE_CHECKING:
    from scvi._types import AnnOrMuData
    from scvi.model.base import BaseModelClass
    from torch import Tensor

    from betavi.model.core.latent_model import LatentModel
    from betavi.module import MultimodalVAE

BETA_LAYERS = (BetaBias, BetaGate, BetaFiLM, BetaLinear)
"""Layers that depend on β. A query model does not train these layers."""


def load_query_data(
    cls: type[LatentModel],
    /,
    adata: AnnOrMuData | None = None,
    reference_model: str | BaseModelClass | None = None,
    registry: dict[str, Any] | None = None,
    inplace_subset_query_vars: bool = False,
    **kwargs: Any,
) -> Any:
    """Return a model of query cells that has the weights of a reference model.

    Parameters
    ----------
    adata
        Query cells, prepared by :meth:`prepare_query_anndata` or :meth:`prepare_query_mudata`.
    reference_model
        Model to map onto, or the folder of a saved model.
    registry
        Registry of a datamodule, in place of ``adata``.
    inplace_subset_query_vars
        Sort the genes of ``adata`` in place, and drop genes that the reference lacks.
    **kwargs
        Parts to freeze, and the device. See :meth:`scvi.model.base.ArchesMixin.load_query_data`.

    Returns
    -------
    A model of the query. :meth:`train` fits only the weights of new categories, such as a new
    batch. These are columns of the networks or, with ``batch_representation="embedding"``, rows of
    the embedding. A query without new categories needs no training.

    Raises
    ------
    TypeError
        If ``adata`` is not of the same kind (AnnData or MuData) as the reference's data.
    KeyError
        If ``adata`` lacks a modality of the reference.
    ValueError
        If the features differ from the reference's features, or the counts are not valid.

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
        cls.adapter.check_kind(adata)
    check_arguments({"reference_model": reference_model})
    reference_model = opened(reference_model)
    reference = _get_loaded_data(reference_model, device="cpu")[0]
    if registry is not None:
        _check_extends(registry, reference["registry_"])
    model = ArchesMixin.load_query_data.__func__(
        cls, adata, reference_model, registry, inplace_subset_query_vars, **kwargs
    )
    unfrozen = bool(kwargs.get("unfrozen"))
    _set_trained_parts(model, unfrozen)
    if adata is not None:
        for name, largest in model.largest_totals.items():
            totals = model.rows(adata, name).totals()
            warn_deep_cells(totals, adata.obs_names, f"the query ({name})", largest)
        old, new = _categories(reference["registry_"]), _categories(model.registry_)
        _train_new_batches(model.module, len(old[0]))
        # without new categories, the weights of the reference are sufficient
        model.is_trained_ = reference["is_trained_"] and new == old and not unfrozen
    return model


def _check_extends(registry: dict[str, Any], reference: dict[str, Any]) -> None:
    """Raise a ValueError if a datamodule numbers the batches unlike the reference."""
    batches, known = (
        list(_state(each).get("categorical_mapping", [])) for each in (registry, reference)
    )
    if batches[: len(known)] != known:
        raise ValueError(
            f"The datamodule has the batches {name_some(batches)}, but must begin with the batches of the "
            f"reference, {name_some(known)}. Map the files: load_query_data(betavi.data.read_lazy(paths), model). Or, "
            "make the datamodule with StoreDataModule(..., reference=model, extend_categories=True)."
        )


def _state(registry: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = registry["field_registries"].get(REGISTRY_KEYS.BATCH_KEY, {})
    return found.get("state_registry", {})


def _set_trained_parts(model: BaseModelClass, unfrozen: bool) -> None:
    """Train the batch embeddings of a query.

    Train layers that depend on β only if all parts are trained.
    """
    # scvi-tools 1.4 freezes embeddings, so a new batch would keep its random start values
    for parameter in model.module.embeddings_dict.parameters():
        parameter.requires_grad_(True)
    # scvi-tools chooses trained layers by name, and would train these
    for part in model.module.modules():
        if isinstance(part, BETA_LAYERS):
            part.requires_grad_(unfrozen)


def _categories(registry: dict[str, Any]) -> list[list[Any]]:
    """Return batches, labels, and the numbers of categories of further covariates."""
    states = {name: field["state_registry"] for name, field in registry["field_registries"].items()}
    keys = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY)
    single = [list(states[key]["categorical_mapping"]) for key in keys if key in states]
    several = states.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("n_cats_per_key", [])
    return [*single, list(several)]


def _train_new_batches(module: MultimodalVAE, n_known: int) -> None:
    """Train the likelihoods' parameters of new batches, starting at the mean of known batches.

    scvi-tools leaves these parameters at random values, and does not train them.
    """
    for part in module.likelihoods.modules():
        for name in getattr(part, "per_batch", ()):
            parameter = getattr(part, name)
            with torch.no_grad():
                parameter[:, n_known:] = parameter[:, :n_known].mean(dim=1, keepdim=True)
            parameter.requires_grad_(True)
            parameter.register_hook(partial(_zero_known_batches, n_known=n_known))


def _zero_known_batches(gradient: Tensor, n_known: int) -> Tensor:
    """Return a gradient that does not change the reference's batches."""
    gradient = gradient.clone()
    gradient[:, :n_known] = 0
    return gradient
