"""Query mapping of several assays, of which a query may lack some."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anndata
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.model.base import ArchesMixin

from betavi._mudata import assembled, copied
from betavi.model.reference.query import answer_if_nothing_is_new, attributes_of, thaw
from betavi.model.setup.check_mudata import check_is_mudata
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    from mudata import MuData
    from scvi.model.base import BaseModelClass
    from torch import Tensor

    from betavi.module import MultimodalVAE


class JointQueryMixin(ArchesMixin):
    """scvi-tools' scArches, for cells that lack some of the reference's modalities too."""

    @classmethod
    def load_query_data(
        cls, mdata: MuData, reference_model: str | BaseModelClass, **kwargs: Any
    ) -> Self:
        """Return a model of query cells that shares the reference's weights.

        Parameters
        ----------
        mdata
            Query cells, which :meth:`prepare_query_mudata` made fit.
        reference_model
            The model to map onto, or the folder it was saved to.
        **kwargs
            What to freeze, and the device: see :meth:`scvi.model.base.ArchesMixin.load_query_data`.

        Returns
        -------
        A model that :meth:`train` teaches the query's new categories only. If there are none, it
        answers at once.

        Raises
        ------
        TypeError
            If ``mdata`` is no MuData.
        KeyError
            If it lacks a modality: see :meth:`prepare_query_mudata`.

        References
        ----------
        Lotfollahi et al. (2022), Mapping single-cell data to reference atlases by transfer learning.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, n_batches=2)
        >>> likelihoods = {"rna": "zinb", "adt": "nb_mixture"}
        >>> betavi.JointVI.setup_mudata(mdata, likelihoods, batch_key="batch")
        >>> model = betavi.JointVI(mdata, n_latent=5)
        >>> query = betavi.datasets.simulate_multiome(n_cells=50, n_proteins=0, seed=1)
        >>> query.obs["batch"] = "new"
        >>> query = betavi.JointVI.prepare_query_mudata(query, model)
        >>> betavi.JointVI.load_query_data(query, model).summary_stats.n_batch
        3
        """
        check_is_mudata(mdata)
        reference = attributes_of(reference_model)
        fields = reference["registry_"]["field_registries"]
        state = fields[REGISTRY_KEYS.BATCH_KEY]["state_registry"]
        model = super().load_query_data(mdata, reference_model, **kwargs)
        thaw(model, bool(kwargs.get("unfrozen")))
        _teach_new_batches(model.module, len(state["categorical_mapping"]))
        answer_if_nothing_is_new(model, reference, bool(kwargs.get("unfrozen")))
        return model

    @staticmethod
    def prepare_query_mudata(mdata: MuData, reference_model: str | BaseModelClass) -> MuData:
        """Return query cells with the modalities and features of a reference.

        A modality that the query lacks is one that none of its cells has: no matrix is padded.
        Features that the query lacks within a modality are zeros, of which a warning tells.

        Parameters
        ----------
        mdata
            Query cells, which are left as they are.
        reference_model
            The model to map onto, or the folder it was saved to.

        Returns
        -------
        A new object.

        Raises
        ------
        TypeError
            If ``mdata`` is no MuData.
        ValueError
            If it has none of the reference's modalities, or none of the features of one.

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
        kept = np.any([mdata.obsmap[name] > 0 for name in shared], axis=0)
        if not kept.all():
            warn(
                f"{(~kept).sum()} cell(s) of the query have none of the reference's modalities, and are "
                f"left out: {name_some(mdata.obs_names[~kept])}."
            )
        parts = {
            name: _fitted(mdata, name, pd.Index(names), layers.get(name))
            for name, names in features.items()
        }
        # scvi-tools takes an object whose first modality is all zeros for a minified one
        filled_first = dict(sorted(parts.items(), key=lambda part: not part[1].n_obs))
        found = assembled(filled_first)
        found.obs = found.obs.join(mdata.obs)
        # as the user's cells are ordered, so that answers can be written beside them
        return copied(found[mdata.obs_names[kept]])


def _teach_new_batches(module: MultimodalVAE, n_known: int) -> None:
    """Let what likelihoods know of each batch start at the mean of those known, and learn.

    scvi-tools leaves it where it was drawn, and does not train it.
    """
    for part in module.likelihoods.modules():
        for name in getattr(part, "per_batch", ()):
            parameter = getattr(part, name)
            with torch.no_grad():
                parameter[:, n_known:] = parameter[:, :n_known].mean(dim=1, keepdim=True)
            parameter.requires_grad_(True)
            parameter.register_hook(partial(_of_new, n_known=n_known))


def _of_new(gradient: Tensor, n_known: int) -> Tensor:
    """Keep what the reference has learned."""
    kept = gradient.clone()
    kept[:, :n_known] = 0
    return kept


def _reference(model: str | BaseModelClass) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the registry of a model, and the features of its modalities."""
    registry = attributes_of(model)["registry_"]
    fields, names = registry["field_registries"], registry["setup_args"]["likelihoods"]
    return registry, {name: fields[name]["state_registry"]["column_names"] for name in names}


def _fitted(mdata: MuData, name: str, features: pd.Index, layer: str | None) -> AnnData:
    """Return the cells that have a modality, with the features of the reference."""
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
        said = dict(query.uns)
        query = anndata.concat([query, padding], axis=1, join="outer", merge="first")
        query.uns.update(said)
    return query[:, features].copy()
