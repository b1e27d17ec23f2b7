"""Query cells with the features and modalities of a reference model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scvi.model.base import ArchesMixin
from scvi.model.base._archesmixin import _get_loaded_data

from betavi._mudata import assembled, copied
from betavi.data import files_of
from betavi.model.io.loading import opened
from betavi.model.setup.arguments import check_arguments
from betavi.model.setup.check_counts import check_is_anndata
from betavi.model.setup.check_mudata import check_is_mudata
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    from typing import NoReturn

    from mudata import MuData
    from scvi.model.base import BaseModelClass


def prepare_query_anndata(
    adata: AnnData, reference_model: str | BaseModelClass, *args: Any, **kwargs: Any
) -> Any:
    """Sort the genes of query cells in the reference's order, and add missing genes as zeros.

    Parameters
    ----------
    adata
        Query cells.
    reference_model
        Model to map onto, or the folder of a saved model.
    *args, **kwargs
        See :meth:`scvi.model.base.ArchesMixin.prepare_query_anndata`.

    Returns
    -------
    None if ``adata`` is changed in place, which is the default. With other options, a new object,
    or the names of the reference's genes. A model of images has no genes, and nothing changes.

    Raises
    ------
    TypeError
        If ``adata`` is not an AnnData.

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
    check_arguments({"reference_model": reference_model})
    _check_unique(adata.var_names, "adata")
    entry = adata.uns.get("betavi")
    reference = opened(reference_model)
    genes = _get_loaded_data(reference, device="cpu")[1]
    if not len(genes):
        # a model of images has no genes to sort
        return adata.copy() if kwargs.get("inplace") is False else None
    files = files_of(adata)
    if files and list(genes) != list(adata.var_names):
        raise ValueError(
            f"The genes of {name_some(list(map(str, files)))} differ from those of the reference, and the counts "
            "stay in the files. Read the query with anndata.read_h5ad. Or, write files with the genes of the "
            "reference in the same order, with zeros for missing genes."
        )
    found = ArchesMixin.prepare_query_anndata(adata, reference, *args, **kwargs)
    # padding drops uns, which says where the counts are
    for prepared in (adata, found):
        if entry is not None and isinstance(prepared, AnnData):
            prepared.uns["betavi"] = entry
    return found


def prepare_query_mudata(mdata: MuData, reference_model: str | BaseModelClass) -> MuData:
    """Return a new object of query cells, with the modalities and features of a reference model.

    Missing features of a modality become zeros, with a warning. A modality that the query lacks has
    no cells.

    Parameters
    ----------
    mdata
        Query cells. The object does not change.
    reference_model
        Model to map onto, or the folder of a saved model.

    Raises
    ------
    TypeError
        If ``mdata`` is not a MuData.
    ValueError
        If ``mdata`` shares no modality with the reference, or no feature in one of the modalities.

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
    check_arguments({"reference_model": reference_model})
    registry, features = _reference(reference_model)
    layers = registry["setup_args"]["layers"] or {}
    shared = [name for name in features if name in mdata.mod]
    if not shared:
        raise ValueError(
            f"Query and reference share no modality. The query has {name_some(list(mdata.mod))}. "
            f"The reference has {name_some(list(features))}. Rename the modalities of the query."
        )
    fits = np.any([mdata.obsmap[name] > 0 for name in shared], axis=0)
    if not fits.all():
        warn(
            f"{(~fits).sum()} cell(s) of the query have none of the reference's modalities, and "
            f"are left out: {name_some(mdata.obs_names[~fits])}. Remove these cells to silence "
            "this warning."
        )
    parts = {
        name: _with_features(mdata, name, pd.Index(names), layers.get(name))
        for name, names in features.items()
    }
    # scvi-tools treats an object as minified if its first modality is all zeros
    filled_first = dict(sorted(parts.items(), key=lambda part: not part[1].n_obs))
    found = assembled(filled_first)
    found.obs = found.obs.join(mdata.obs)
    # in the order of the user's cells, so that results can be added to the user's object
    return copied(found[mdata.obs_names[fits]])


def refuse_prepare_query_anndata(*_args: Any, **_kwargs: Any) -> NoReturn:
    """Raise a TypeError: use :meth:`prepare_query_mudata`."""
    raise TypeError(
        "JointVI has no prepare_query_anndata, because it reads a MuData. Call prepare_query_mudata()"
    )


def refuse_prepare_query_mudata(*_args: Any, **_kwargs: Any) -> NoReturn:
    """Raise a TypeError: use :meth:`prepare_query_anndata`."""
    raise TypeError(
        "BetaVI and EffectVI have no prepare_query_mudata, because they read an AnnData. Call "
        "prepare_query_anndata()"
    )


def _check_unique(names: pd.Index, label: str) -> None:
    """Raise a ValueError if feature names are repeated, because they would match several times."""
    if len(repeated := names[names.duplicated()].unique()):
        raise ValueError(
            f"{label} has {len(repeated)} repeated feature name(s): {name_some(repeated)}. Make the "
            f"names unique first: {label}.var_names_make_unique()"
        )


def _reference(model: str | BaseModelClass) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the registry of a model, and the feature names of its modalities."""
    registry = _get_loaded_data(opened(model), device="cpu")[0]["registry_"]
    fields, names = registry["field_registries"], registry["setup_args"]["likelihoods"]
    return registry, {name: fields[name]["state_registry"]["column_names"] for name in names}


def _with_features(mdata: MuData, name: str, features: pd.Index, layer: str | None) -> AnnData:
    """Return the cells with a modality, with the features of the reference."""
    if name not in mdata.mod:
        empty = sparse.csr_matrix((0, len(features)), dtype=np.float32)
        layers = {} if layer is None else {layer: empty.copy()}
        return AnnData(empty, var=pd.DataFrame(index=features), layers=layers)
    query = mdata[name]
    _check_unique(query.var_names, f"mdata[{name!r}]")
    missing = features.difference(query.var_names)
    if len(missing) == len(features):
        raise ValueError(
            f"The modality {name!r} of the query has none of the reference's features, which are "
            f"{name_some(features)}. Use the same names in `var_names` of the query."
        )
    if len(missing):
        warn(
            f"{len(missing)} of the {len(features)} features of the modality {name!r} are missing "
            f"in the query. The model will read zeros for these features: {name_some(missing)}."
        )
        zeros = sparse.csr_matrix((query.n_obs, len(missing)), dtype=np.float32)
        # from anndata 0.13, the layer None is X
        layers = {name: zeros.copy() for name in query.layers if name is not None}
        obs, var = pd.DataFrame(index=query.obs_names), pd.DataFrame(index=missing)
        padding, uns = AnnData(zeros, obs=obs, var=var, layers=layers), dict(query.uns)
        query = anndata.concat([query, padding], axis=1, join="outer", merge="first")
        query.uns.update(uns)
    return query[:, features].copy()
