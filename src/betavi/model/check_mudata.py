"""What is wrong with a MuData, said before anything is done with it."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from mudata import MuData
from torch import nn

from betavi._tables import close_matches, lookup
from betavi.likelihoods import LIKELIHOODS
from betavi.model.check_counts import check_counts
from betavi.model.messages import name_some, warn
from betavi.train import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

OF_MANY_COUNTS = {"zinb", "nb", "poisson", "nb_mixture"}
"""Likelihoods that a matrix of zeros and ones is hardly made for."""


def check_is_mudata(mdata: Any) -> None:
    """Refuse what is no MuData.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not isinstance(mdata, MuData):
        raise TypeError(
            f"JointVI takes a MuData, not a {type(mdata).__name__}. Put the assays together with "
            "mudata.MuData({'rna': rna, 'adt': adt}), or model one of them with BetaVI."
        )
    if mdata.axis != 0:
        raise TypeError("The modalities of the MuData share features. JointVI needs shared cells.")


def check_modalities(
    mdata: MuData,
    likelihoods: Mapping[str, str],
    layers: Mapping[str, str | None],
    may_lack_any: bool = False,
) -> None:
    """Check the counts of every modality, and which cells have it.

    Parameters
    ----------
    mdata
        The object.
    likelihoods, layers
        By modality.
    may_lack_any
        Whether there may be no cell at all that has a modality, or two of them: of a query, which
        shares the weights of a model that was trained on such cells.

    Raises
    ------
    KeyError
        If a modality or a layer does not exist.
    ValueError
        If names of cells repeat, a cell has no modality, or counts are none.
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
        modality, called = mdata.mod[name], f"mdata[{name!r}]"
        for kind, names in (("cell", modality.obs_names), ("feature", modality.var_names)):
            if not names.is_unique:
                repeated = names[names.duplicated()].unique()
                raise ValueError(f"{called} has {kind}s of the same name: {name_some(repeated)}.")
        check_counts(modality, layers.get(name), None, warn, called)
        _check_binary(modality, layers.get(name), likelihood, called)
    _check_overlap(mdata, list(likelihoods), must_overlap=not may_lack_any)


def _check_binary(adata: AnnData, layer: str | None, likelihood: str, called: str) -> None:
    if likelihood not in OF_MANY_COUNTS:
        return
    rows = Rows(adata.X if layer is None else adata.layers[layer])
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
    pairs = list(combinations(names, 2))
    if must_overlap and pairs and not any((has[one] & has[other]).any() for one, other in pairs):
        warn(
            f"No cell has two of {name_some(names)}. A latent space of each is learnt, but nothing "
            "ties them together: neither translation nor a common embedding means anything."
        )


def check_batches(
    mdata: MuData, layers: Mapping[str, str | None], likelihoods: Mapping[str, str], key: str | None
) -> None:
    """Refuse features that a whole batch of cells lacks, though others have them.

    Raises
    ------
    ValueError
        If there are any: zeros of what was not measured would be learnt as biology.
    """
    if key is None:
        return
    for name in likelihoods:
        modality = mdata.mod[name]
        if not modality.n_obs:
            continue
        rows = Rows(modality.X if layers.get(name) is None else modality.layers[layers[name]])
        batch = mdata.obs[key].loc[modality.obs_names].astype(str).to_numpy()
        codes, labels = np.unique(batch, return_inverse=True)
        seen = np.zeros((len(codes), rows.shape[1]))
        for start, block in rows.blocks():
            some = labels[start : start + block.shape[0]]
            for code in np.unique(some):
                seen[code] += np.asarray((block[some == code] != 0).sum(axis=0)).ravel()
        _tell_absent(name, key, codes, modality.var_names, seen, np.bincount(labels))


def _tell_absent(
    name: str, key: str, codes: np.ndarray, features: Any, seen: np.ndarray, sizes: np.ndarray
) -> None:
    """Name features that a batch of many cells never shows, where others show them often."""
    share = seen.sum(axis=0) / sizes.sum()
    for code, counts, size in zip(codes, seen, sizes, strict=True):
        # that so many cells show none by chance is less likely than one in e to the 20th
        absent = (counts == 0) & (size * share > 20)
        if absent.any():
            raise ValueError(
                f"{absent.sum()} feature(s) of mdata[{name!r}] have no counts in batch {code!r} of "
                f"mdata.obs[{key!r}], and many elsewhere: {name_some(features[absent])}. They were "
                "not measured there: drop them, or make that batch's cells a modality of its own."
            )
