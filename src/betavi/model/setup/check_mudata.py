"""Checks of a MuData before registration."""

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
from betavi.data.images import image_format
from betavi.likelihoods import IMAGE_LIKELIHOODS, LIKELIHOODS
from betavi.model.setup.check_counts import check_counts
from betavi.model.setup.check_depth import warn_deep_cells
from betavi.model.setup.check_images import check_image_likelihood, check_images
from betavi.model.setup.messages import name_some, warn
from betavi.nn import FUSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeGuard

    import pandas as pd
    from anndata import AnnData

_RESERVED_KEYS = {
    REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY,
    REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.CONT_COVS_KEY, REGISTRY_KEYS.SIZE_FACTOR_KEY,
    REGISTRY_KEYS.MINIFY_TYPE_KEY,
}  # fmt: skip
"""Entries of a minibatch that no modality may be named after."""


def check_is_mudata(mdata: Any) -> None:
    """Raise a TypeError unless ``mdata`` is a MuData whose modalities share cells."""
    if not isinstance(mdata, MuData):
        raise TypeError(
            f"`adata` must be a MuData, not {type(mdata).__name__}. Combine assays with "
            "mudata.MuData({'rna': rna, 'adt': adt}), or model one assay with BetaVI."
        )
    if mdata.axis != 0:
        raise TypeError(
            f"`mdata` joins its modalities by features (axis={mdata.axis}), but they must be "
            "joined by cells. Create it with MuData(..., axis=0)."
        )


def lacks_counts(mdata: MuData) -> bool:
    """Return True if an object is minified, with zeros in place of counts."""
    return bool(_get_adata_minify_type(mdata) == ADATA_MINIFY_TYPE.LATENT_POSTERIOR)


def check_modalities(
    mdata: MuData,
    likelihoods: Mapping[str, str],
    layers: Mapping[str, str | None],
    may_lack_any: bool = False,
    largest_totals: Mapping[str, float] | None = None,
    image_keys: Mapping[str, str] | None = None,
) -> None:
    """Check the names, counts or images, and cells of every modality.

    ``largest_totals`` are the limits of a trained model, by modality, see
    :func:`~betavi.model.setup.check_depth.warn_deep_cells`.

    With ``may_lack_any``, modalities may have no cells, or no cells in common. This option is for
    queries, because the reference model has already linked the modalities.
    """
    image_keys = image_keys or {}
    _check_named(mdata, likelihoods, layers, image_keys)
    for name, likelihood in likelihoods.items():
        if may_lack_any and not mdata.mod[name].n_obs:
            continue
        _check_likelihood(name, likelihood, is_image=name in image_keys)
        _check_name(name, likelihoods)
        _check_unique(mdata.mod[name], f"mdata[{name!r}]")
        check_rows(mdata, name)
        if lacks_counts(mdata):
            continue
        if name in image_keys:
            _check_images_of(mdata, name, image_keys[name], likelihood, is_new=not may_lack_any)
            continue
        # cells of a trained model keep its genes
        warn_genes = None if may_lack_any else warn
        totals = _check_counts_of(mdata, name, layers.get(name), likelihood, warn_genes)
        if largest_totals is not None or not may_lack_any:
            limit = None if largest_totals is None else largest_totals[name]
            warn_deep_cells(totals, mdata.mod[name].obs_names, f"mdata[{name!r}]", limit)
    _check_overlap(mdata, list(likelihoods), must_overlap=not may_lack_any)


def _check_named(
    mdata: MuData,
    likelihoods: Mapping[str, str],
    layers: Mapping[str, str | None],
    image_keys: Mapping[str, str],
) -> None:
    """Check that the arguments of the setup name modalities, and the same modalities."""
    if not likelihoods:
        raise ValueError(
            "`likelihoods` names no modality. Pass, for example, likelihoods={'rna': 'zinb'}"
        )
    for name in {**likelihoods, **layers, **image_keys}:
        if name not in mdata.mod:
            raise KeyError(f"`mdata` has no modality {name!r}. {close_matches(name, mdata.mod)}")
    for argument, named in (("layers", layers), ("image_keys", image_keys)):
        if unknown := sorted(set(named) - set(likelihoods)):
            raise KeyError(
                f"`{argument}` names the modality {unknown[0]!r}, but `likelihoods` does not. Add "
                f"{unknown[0]!r} to `likelihoods`, or remove {unknown[0]!r} from `{argument}`."
            )
    if both := sorted(set(layers) & set(image_keys)):
        raise ValueError(
            f"`layers` and `image_keys` both name {both[0]!r}. A modality has counts or images. Remove "
            f"{both[0]!r} from one of them."
        )


def _check_name(name: str, names: Iterable[str]) -> None:
    """Raise a ValueError for a modality with a name that PyTorch or a minibatch needs."""
    if "." in name or hasattr(nn.ModuleDict, name):
        raise ValueError(
            f"A modality cannot be named {name!r}, because PyTorch does not allow this name. "
            "Rename the modality. Do not use dots, or names of methods of torch.nn.ModuleDict "
            "such as 'keys' or 'items'."
        )
    own_keys = {key for part in names for key in (present_key(part), *expert_keys(part))}
    if name in own_keys | _RESERVED_KEYS:
        raise ValueError(
            f"A modality cannot be named {name!r}, because this name is reserved for other "
            "data. Rename the modality."
        )


def _check_unique(modality: AnnData, label: str) -> None:
    for kind, names in (("cell", modality.obs_names), ("feature", modality.var_names)):
        if not names.is_unique:
            repeated = name_some(names[names.duplicated()].unique())
            raise ValueError(
                f"{label} has repeated {kind} names: {repeated}. Make the names unique."
            )


def _check_images_of(mdata: MuData, name: str, key: str, likelihood: str, *, is_new: bool) -> None:
    """Check images. Those of a query are not compared with a likelihood, and do not warn."""
    modality = mdata.mod[name]
    check_images(modality, key, f"mdata[{name!r}]", warn if is_new else None, warn_saturated=is_new)
    if is_new:
        check_image_likelihood(name, likelihood, image_format(modality.obsm[key]))


def _check_counts_of(
    mdata: MuData,
    name: str,
    layer: str | None,
    likelihood: str,
    warn_genes: Callable[[str], None] | None,
) -> np.ndarray:
    """Check the counts of a modality, and return the total of each cell."""
    modality, label = mdata.mod[name], f"mdata[{name!r}]"
    warn_fractions = warn if LIKELIHOODS[likelihood].of_whole_numbers else None
    totals = check_counts(modality, layer, None, warn_genes, label, warn_fractions)
    _check_empty(totals, modality.obs_names, label)
    _check_binary(modality, layer, likelihood, label)
    return totals


def _check_likelihood(name: str, likelihood: str, *, is_image: bool) -> None:
    """Raise a ValueError if a likelihood is unknown, or is for images but there are counts."""
    if is_image:
        return
    if likelihood in set(IMAGE_LIKELIHOODS) - set(LIKELIHOODS):
        raise ValueError(
            f"likelihoods[{name!r}] is {likelihood!r}, a likelihood of images. Name the images: "
            f"image_keys={{{name!r}: 'image'}}, an entry of mdata[{name!r}].obsm."
        )
    lookup(LIKELIHOODS, likelihood, f"likelihoods[{name!r}]")


def check_rows(mdata: MuData, name: str) -> None:
    """Raise a ValueError if the cells of a modality changed since the MuData was built."""
    position = mdata[name].obs_names.get_indexer(mdata.obs_names)
    if not np.array_equal(position + 1, np.asarray(mdata.obsmap[name])):
        raise ValueError(
            f"mdata[{name!r}] was changed after the MuData was built, so the rows of this modality "
            "no longer match the cells of the MuData. Run first: mdata.update()"
        )


def _check_empty(totals: np.ndarray, names: pd.Index, label: str) -> None:
    empty = totals == 0
    if empty.any():
        warn(
            f"{empty.sum()} cell(s) of {label} have no counts: "
            f"{name_some(names[empty])}. The model treats these cells as measured. If "
            "they were not measured, remove the cells from this modality. Cells that lack a "
            "modality need no zeros."
        )


def _check_binary(adata: AnnData, layer: str | None, likelihood: str, label: str) -> None:
    kind = LIKELIHOODS[likelihood]
    if not (kind.is_gamma_poisson or kind.has_background):
        return
    rows = Rows(counts_of(adata, layer))
    if all(block.max() <= 1 for _, block in rows.blocks()):
        warn(
            f"{label} has no value above 1, but the likelihood {likelihood!r} is for counts. If "
            "the values show only presence or absence, use the likelihood 'bernoulli'. If the "
            "values are counts from shallow sequencing, ignore this warning."
        )


def _check_overlap(mdata: MuData, names: list[str], must_overlap: bool) -> None:
    has = {name: mdata.obsmap[name] > 0 for name in names}
    empty = mdata.obs_names[~np.any(list(has.values()), axis=0)]
    if len(empty):
        raise ValueError(
            f"{len(empty)} cell(s) have none of the registered modalities ({name_some(names)}): "
            f"{name_some(empty)}. Register another modality of these cells, or drop these cells."
        )
    overlap = np.array([[(has[one] & has[other]).any() for one in names] for other in names])
    n_groups, group = connected_components(overlap, directed=False)
    if must_overlap and n_groups > 1:
        groups = [
            name_some([name for name, own in zip(names, group, strict=True) if own == number])
            for number in range(n_groups)
        ]
        warn(
            f"No cell links {' to '.join(groups)}: no cell was measured with both. The model "
            "learns a separate latent space for each, so translation between them and joint "
            "embeddings are meaningless. Add cells that were measured with both."
        )


def check_is_set_up(mdata: Any) -> None:
    """Raise a ValueError for a MuData that was not registered."""
    check_is_mudata(mdata)
    if _SCVI_UUID_KEY not in mdata.uns:
        raise ValueError("Register `mdata` first: JointVI.setup_mudata(mdata, likelihoods={...})")


def check_fusion(fusion: str, n_modalities: int) -> None:
    """Raise a ValueError for a fusion that is unknown or does not fit the number of modalities."""
    fit = {k: rule for k, rule in FUSIONS.items() if n_modalities == 1 or not rule.is_of_one}
    lookup(fit, fusion, "fusion")


def is_weight(value: Any) -> TypeGuard[float]:
    """Return True if a value is a positive, finite number."""
    return isinstance(value, Real) and math.isfinite(value) and float(value) > 0
