"""Checks of a MuData, before anything else is done with it."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from mudata import MuData
from scipy.sparse.csgraph import connected_components
from scvi import REGISTRY_KEYS
from scvi.data._constants import _SCVI_UUID_KEY, ADATA_MINIFY_TYPE
from scvi.data._utils import _get_adata_minify_type
from torch import nn

from betavi._tables import close_matches, lookup
from betavi.data import Rows, counts_of, expert_keys, present_key
from betavi.likelihoods import LIKELIHOODS
from betavi.model.setup.check_counts import check_counts
from betavi.model.setup.messages import name_some, warn
from betavi.nn import FUSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypeGuard

    from anndata import AnnData

_KEYS = {
    REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY,
    REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.CONT_COVS_KEY, REGISTRY_KEYS.SIZE_FACTOR_KEY,
    REGISTRY_KEYS.MINIFY_TYPE_KEY,
}  # fmt: skip
"""Entries of a minibatch beside modalities."""


def check_is_mudata(mdata: Any) -> None:
    """Raise a TypeError unless it is a MuData of shared cells."""
    if not isinstance(mdata, MuData):
        raise TypeError(
            f"JointVI takes a MuData, not a {type(mdata).__name__}. Put the assays together with "
            "mudata.MuData({'rna': rna, 'adt': adt}), or model one of them with BetaVI."
        )
    if mdata.axis != 0:
        raise TypeError("The modalities of the MuData share features. JointVI needs shared cells.")


def lacks_counts(mdata: MuData) -> bool:
    """Return whether an object was minified, and has zeros in the place of counts."""
    return bool(_get_adata_minify_type(mdata) == ADATA_MINIFY_TYPE.LATENT_POSTERIOR)


def check_modalities(
    mdata: MuData,
    likelihoods: Mapping[str, str],
    layers: Mapping[str, str | None],
    may_lack_any: bool = False,
) -> None:
    """Check the names, the counts and the cells of every modality.

    With ``may_lack_any``, modalities may have no cells, or none in common: those of a query, which
    shares the weights of a model that was trained on such cells.
    """
    if not likelihoods:
        raise ValueError("likelihoods names no modality: likelihoods={'rna': 'zinb'}.")
    for name in {**likelihoods, **layers}:
        if name not in mdata.mod:
            raise KeyError(f"The MuData has no modality {name!r}. {close_matches(name, mdata.mod)}")
    if unknown := sorted(set(layers) - set(likelihoods)):
        raise KeyError(f"layers names {unknown[0]!r}, and likelihoods does not.")
    for name, likelihood in likelihoods.items():
        if may_lack_any and not mdata.mod[name].n_obs:
            continue
        lookup(LIKELIHOODS, likelihood, f"likelihoods[{name!r}]")
        if "." in name or hasattr(nn.ModuleDict, name):
            raise ValueError(
                f"PyTorch can name no part of a model {name!r}. Rename the modality: no dots, and no "
                "name that a dictionary of PyTorch has itself."
            )
        if name in _taken(likelihoods):
            raise ValueError(
                f"{name!r} is what a minibatch calls something else. Rename the modality."
            )
        modality, called = mdata.mod[name], f"mdata[{name!r}]"
        for kind, names in (("cell", modality.obs_names), ("feature", modality.var_names)):
            if not names.is_unique:
                repeated = names[names.duplicated()].unique()
                raise ValueError(f"{called} has {kind}s of the same name: {name_some(repeated)}.")
        check_rows(mdata, name)
        if lacks_counts(mdata):
            continue
        warn_fractions = warn if LIKELIHOODS[likelihood].of_whole_numbers else None
        check_counts(modality, layers.get(name), None, warn, called, warn_fractions)
        _check_empty(modality, layers.get(name), called)
        _check_binary(modality, layers.get(name), likelihood, called)
    _check_overlap(mdata, list(likelihoods), must_overlap=not may_lack_any)


def _taken(names: Iterable[str]) -> set[str]:
    """Return the keys of a minibatch that are not modalities."""
    own = {key for name in names for key in (present_key(name), *expert_keys(name))}
    return own | _KEYS


def check_rows(mdata: MuData, name: str) -> None:
    """Raise a ValueError if a modality was changed after it became part of the MuData."""
    position = mdata[name].obs_names.get_indexer(mdata.obs_names)
    if not np.array_equal(position + 1, np.asarray(mdata.obsmap[name])):
        raise ValueError(
            f"mdata[{name!r}] was changed after it became part of the MuData, which takes its rows for "
            "those of other cells. Call mdata.update() first."
        )


def _check_empty(adata: AnnData, layer: str | None, called: str) -> None:
    empty = Rows(counts_of(adata, layer)).totals() == 0
    if empty.any():
        warn(
            f"{empty.sum()} cell(s) of {called} have no counts: {name_some(adata.obs_names[empty])}. "
            "That is taken for what was measured. If they were not, take them out of the modality: "
            "a cell that lacks an assay is not in it, and no zeros are needed in its place."
        )


def _check_binary(adata: AnnData, layer: str | None, likelihood: str, called: str) -> None:
    kind = LIKELIHOODS[likelihood]
    if not (kind.is_gamma_poisson or kind.has_background):
        return
    rows = Rows(counts_of(adata, layer))
    if all(block.max() <= 1 for _, block in rows.blocks()):
        warn(
            f"{called} has no value above 1: it was made binary, or is shallow. {likelihood!r} is of "
            f"counts; 'bernoulli' is of whether there are any."
        )


def _check_overlap(mdata: MuData, names: list[str], must_overlap: bool) -> None:
    has = {name: mdata.obsmap[name] > 0 for name in names}
    nothing = mdata.obs_names[~np.any(list(has.values()), axis=0)]
    if len(nothing):
        raise ValueError(
            f"{len(nothing)} cell(s) have none of {name_some(names)}: {name_some(nothing)}. Register "
            "the modality that they have, or drop them."
        )
    ties = np.array([[(has[one] & has[other]).any() for one in names] for other in names])
    n_parts, part = connected_components(ties, directed=False)
    if must_overlap and n_parts > 1:
        groups = [
            name_some([name for name, own in zip(names, part, strict=True) if own == number])
            for number in range(n_parts)
        ]
        warn(
            f"No cell ties {' to '.join(groups)}: none has both. A latent space of each is learnt, "
            "but neither translation nor a common embedding means anything across them."
        )


def check_is_set_up(mdata: Any) -> None:
    """Raise a ValueError for a MuData that was not registered."""
    check_is_mudata(mdata)
    if _SCVI_UUID_KEY not in mdata.uns:
        raise ValueError(
            "Say first which modalities the model is of: JointVI.setup_mudata(mdata, likelihoods={...})."
        )


def check_fusion(fusion: str, n_modalities: int) -> None:
    """Raise a ValueError for an unknown fusion, or one of a single modality if there are several."""
    fit = {k: rule for k, rule in FUSIONS.items() if n_modalities == 1 or not rule.is_of_one}
    lookup(fit, fusion, "fusion")


def is_weight(value: Any) -> TypeGuard[float]:
    """Return whether it is a positive, finite number."""
    return isinstance(value, Real) and math.isfinite(value) and float(value) > 0
