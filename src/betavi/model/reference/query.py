"""Query mapping: new cells, of one modality or several, onto a trained model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.model.base import ArchesMixin
from scvi.model.base._archesmixin import _get_loaded_data

from betavi._mudata import assembled, copied
from betavi.model.setup.check_counts import check_is_anndata
from betavi.model.setup.check_mudata import check_is_mudata
from betavi.model.setup.messages import name_some, warn
from betavi.nn import BetaBias, BetaFiLM, BetaGate, BetaLinear

if TYPE_CHECKING:
    from mudata import MuData
    from scvi._types import AnnOrMuData
    from scvi.model.base import BaseModelClass
    from torch import Tensor

    from betavi.model.core.latent_model import LatentModel
    from betavi.module import MultimodalVAE

READS_BETA = (BetaBias, BetaGate, BetaFiLM, BetaLinear)
"""Parts that read β: they stay the reference's."""


def load_query_data(
    cls: type[LatentModel],
    /,
    adata: AnnOrMuData | None = None,
    reference_model: str | BaseModelClass | None = None,
    registry: dict[str, Any] | None = None,
    inplace_subset_query_vars: bool = False,
    **kwargs: Any,
) -> Any:
    """Return a model of query cells that shares the reference's weights.

    Parameters
    ----------
    adata
        Query cells, prepared by :meth:`prepare_query_anndata` or :meth:`prepare_query_mudata`.
    reference_model
        Model to map onto, or the folder it was saved to.
    registry
        Registry of a datamodule, in place of ``adata``.
    inplace_subset_query_vars
        Sort the genes of ``adata`` itself, and drop those that the reference lacks.
    **kwargs
        Parts to freeze, and the device: see :meth:`scvi.model.base.ArchesMixin.load_query_data`.

    Returns
    -------
    A model. :meth:`train` fits only the query's new categories: their weights in the networks or,
    with ``batch_representation="embedding"``, their rows of the embedding. Without new categories
    it needs no training.

    Raises
    ------
    TypeError, KeyError
        If ``adata`` is of another kind than the reference's, or lacks a modality.
    ValueError
        If its features are not the reference's, or its counts are not valid.

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
    reference = _attributes_of(reference_model)
    model = ArchesMixin.load_query_data.__func__(
        cls, adata, reference_model, registry, inplace_subset_query_vars, **kwargs
    )
    unfrozen = bool(kwargs.get("unfrozen"))
    _unfreeze(model, unfrozen)
    if adata is not None:
        old, new = _categories(reference["registry_"]), _categories(model.registry_)
        _train_new_batches(model.module, len(old[0]))
        # without new categories the weights of the reference are enough
        model.is_trained_ = reference["is_trained_"] and new == old and not unfrozen
    return model


def _unfreeze(model: BaseModelClass, unfrozen: bool) -> None:
    """Train the batch embeddings of a query, and parts that read β only if all is trained."""
    # scvi-tools 1.4 freezes embeddings too, and a new batch would stay where it was drawn.
    # Rows of batches that the query has no cells of get no gradient.
    for parameter in model.module.embeddings_dict.parameters():
        parameter.requires_grad_(True)
    # scvi-tools would train them by the name of their layer
    for part in model.module.modules():
        if isinstance(part, READS_BETA):
            part.requires_grad_(unfrozen)


def _attributes_of(model: str | BaseModelClass | None) -> dict[str, Any]:
    """Return the attributes of a reference, or of one in a folder."""
    return _get_loaded_data(model, device="cpu")[0]


def _categories(registry: dict[str, Any]) -> list[list[Any]]:
    """Return batches, labels, and the numbers of categories of further covariates."""
    states = {name: field["state_registry"] for name, field in registry["field_registries"].items()}
    one = [
        list(states[key]["categorical_mapping"])
        for key in (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY)
        if key in states
    ]
    several = states.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("n_cats_per_key", [])
    return [*one, list(several)]


def _train_new_batches(module: MultimodalVAE, n_known: int) -> None:
    """Start the batch parameters of likelihoods at the mean of known batches, and train them.

    scvi-tools leaves them at random, and does not train them.
    """
    for part in module.likelihoods.modules():
        for name in getattr(part, "per_batch", ()):
            parameter = getattr(part, name)
            with torch.no_grad():
                parameter[:, n_known:] = parameter[:, :n_known].mean(dim=1, keepdim=True)
            parameter.requires_grad_(True)
            parameter.register_hook(partial(_zero_known, n_known=n_known))


def _zero_known(gradient: Tensor, n_known: int) -> Tensor:
    """Return a gradient that leaves the batches of the reference as they are."""
    gradient = gradient.clone()
    gradient[:, :n_known] = 0
    return gradient


def prepare_query_anndata(adata: AnnData, *args: Any, **kwargs: Any) -> Any:
    """Sort the genes of query cells as the reference's, and add missing ones as zeros.

    Parameters
    ----------
    adata
        Query cells.
    *args, **kwargs
        See :meth:`scvi.model.base.ArchesMixin.prepare_query_anndata`.

    Returns
    -------
    None if in place, the new object, or the names of the reference's genes.

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
    entry = adata.uns.get("betavi")
    found = ArchesMixin.prepare_query_anndata(adata, *args, **kwargs)
    # padding drops uns, with the place of the counts
    for prepared in (adata, found):
        if entry is not None and isinstance(prepared, AnnData):
            prepared.uns["betavi"] = entry
    return found


def prepare_query_mudata(mdata: MuData, reference_model: str | BaseModelClass) -> MuData:
    """Return query cells with the modalities and features of a reference.

    A modality that the query lacks has no cells and needs no zeros. Features missing within a
    modality become zeros, with a warning.

    Parameters
    ----------
    mdata
        Query cells, which do not change.
    reference_model
        The model to map onto, or the folder it was saved to.

    Returns
    -------
    A new object.

    Raises
    ------
    TypeError, ValueError
        If ``mdata`` is no MuData, or has no modality of the reference's, or no feature of one.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.simulate_multiome(n_cells=100)
    >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    >>> model = betavi.JointVI(mdata, n_latent=5)
    >>> query = betavi.datasets.simulate_multiome(n_cells=50, n_proteins=0, seed=1)
    >>> betavi.JointVI.prepare_query_mudata(query, model)["adt"].shape
    (0, 15)
    """
    check_is_mudata(mdata)
    registry, features = _reference(reference_model)
    layers = registry["setup_args"]["layers"] or {}
    shared = [name for name in features if name in mdata.mod]
    if not shared:
        raise ValueError(
            f"The query has {name_some(list(mdata.mod))}, and the reference "
            f"{name_some(list(features))}: they share no modality."
        )
    fits = np.any([mdata.obsmap[name] > 0 for name in shared], axis=0)
    if not fits.all():
        warn(
            f"{(~fits).sum()} cell(s) of the query have none of the reference's modalities, and are "
            f"left out: {name_some(mdata.obs_names[~fits])}."
        )
    parts = {
        name: _fitted(mdata, name, pd.Index(names), layers.get(name))
        for name, names in features.items()
    }
    # scvi-tools takes an object whose first modality is all zeros for a minified one
    filled_first = dict(sorted(parts.items(), key=lambda part: not part[1].n_obs))
    found = assembled(filled_first)
    found.obs = found.obs.join(mdata.obs)
    # in the order of the user's cells, so that results can be written beside them
    return copied(found[mdata.obs_names[fits]])


def _reference(model: str | BaseModelClass) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the registry of a model, and the features of its modalities."""
    registry = _attributes_of(model)["registry_"]
    fields, names = registry["field_registries"], registry["setup_args"]["likelihoods"]
    return registry, {name: fields[name]["state_registry"]["column_names"] for name in names}


def _fitted(mdata: MuData, name: str, features: pd.Index, layer: str | None) -> AnnData:
    """Return the cells with a modality, with the features of the reference."""
    if name not in mdata.mod:
        empty = sparse.csr_matrix((0, len(features)), dtype=np.float32)
        layers = {} if layer is None else {layer: empty.copy()}
        return AnnData(empty, var=pd.DataFrame(index=features), layers=layers)
    query = mdata[name]
    missing = features.difference(query.var_names)
    if len(missing) == len(features):
        raise ValueError(f"The query's {name!r} has none of the reference's features.")
    if len(missing):
        warn(
            f"{len(missing)} of {len(features)} features of {name!r} are missing in the query, and "
            f"taken for zeros: {name_some(missing)}."
        )
        padding = AnnData(
            sparse.csr_matrix((query.n_obs, len(missing)), dtype=np.float32),
            obs=pd.DataFrame(index=query.obs_names),
            var=pd.DataFrame(index=missing),
        )
        for layer in query.layers:
            padding.layers[layer] = padding.X.copy()
        uns = dict(query.uns)
        query = anndata.concat([query, padding], axis=1, join="outer", merge="first")
        query.uns.update(uns)
    return query[:, features].copy()
