"""Registration of a MuData with scvi-tools, after all checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManagerValidationCheck, fields
from scvi.data._constants import _ADATA_MINIFY_TYPE_UNS_KEY
from scvi.data._utils import _get_adata_minify_type

from betavi._mudata import make_actual
from betavi._pickling import allow_pickling
from betavi._tables import check_flag, check_mapping
from betavi.data import CellManager, ExpertKeys, expert_keys
from betavi.data.images import MuDataImageField
from betavi.model.setup.anndata import check_all_known
from betavi.model.setup.check_features import check_batches
from betavi.model.setup.check_images import check_format
from betavi.model.setup.check_mudata import check_is_mudata, check_modalities
from betavi.model.setup.check_obs import (
    check_all_used,
    check_categories,
    check_genes,
    check_values,
    listed_columns,
)
from betavi.model.setup.registered import untouched_on_failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mudata import MuData

# models of a MuData hold such fields
allow_pickling()

MAY_BE_UNPAIRED = AnnDataManagerValidationCheck(check_fully_paired_mudata=False)

MINIFIED_COLUMNS = ExpertKeys("betavi_expert_mean", "betavi_expert_variance", "betavi_total")
"""Columns of a minified modality: the posterior in ``obsm``, and total counts in ``obs``."""


def refuse_anndata(_cls: Any, *_args: Any, **_kwargs: Any) -> None:
    """Raise a TypeError: use :meth:`setup_mudata`, or :class:`betavi.BetaVI` for one modality."""
    raise TypeError(
        "JointVI models several modalities: use JointVI.setup_mudata(mdata, likelihoods={...}). "
        "For one modality, use BetaVI.setup_anndata(adata)"
    )


def setup_mudata(
    cls: type[Any],
    /,
    mdata: MuData,
    likelihoods: dict[str, str],
    layers: dict[str, str | None] | None = None,
    batch_key: str | None = None,
    labels_key: str | None = None,
    categorical_covariate_keys: list[str] | None = None,
    continuous_covariate_keys: list[str] | None = None,
    keep_absent_features: bool = False,
    image_keys: dict[str, str] | None = None,
    **kwargs: Any,
) -> None:
    """Register the modalities and covariates of a MuData.

    Cells are matched by name. Leave cells that lack a modality out of this modality. These cells
    need no zeros.

    Parameters
    ----------
    mdata
        Modalities with raw counts, joined by cells.
    likelihoods
        Likelihood of each modality, a key of :data:`betavi.likelihoods.LIKELIHOODS`, for example
        ``{"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}``. Other modalities are ignored.
    layers
        Layer with the counts of each modality. For modalities that are not named, ``X``.
    batch_key, labels_key
        Columns of ``mdata.obs`` with the batch and with the label of each cell.
    categorical_covariate_keys, continuous_covariate_keys
        Columns of ``mdata.obs`` with further covariates.
    keep_absent_features
        Accept features that are absent from a whole batch but frequent in others, as biology. If
        False, such features raise an error if they are more than 1 % of a modality's features.
        Otherwise they raise a warning.
    image_keys
        Entry of ``obsm`` with the images of each modality that has images, ``{"image": "image"}``. See
        ``image_key`` of :meth:`betavi.BetaVI.setup_anndata`. The likelihood of such a modality is a
        key of :data:`betavi.likelihoods.IMAGE_LIKELIHOODS`, such as ``"band_normal"``.
    **kwargs
        Passed to scvi-tools' ``AnnDataManager.register_fields``.

    Raises
    ------
    TypeError
        If ``mdata`` is not a MuData.
    KeyError
        If ``mdata`` lacks a modality, a layer, images or a column.
    ValueError
        If counts are invalid, names repeat, a cell has no modality, a covariate is missing for a
        cell, a category has no cells, or a batch lacks features. ``mdata`` is then unchanged.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.simulate_multiome(n_cells=100)
    >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    """
    check_is_mudata(mdata)
    check_flag("keep_absent_features", keep_absent_features)
    check_mapping("likelihoods", likelihoods)
    if layers is not None:
        check_mapping("layers", layers)
    if image_keys is not None:
        check_mapping("image_keys", image_keys)
    # copies, because the user may change the dictionaries later
    likelihoods, layers, image_keys = dict(likelihoods), dict(layers or {}), dict(image_keys or {})
    categorical_covariate_keys = listed_columns(
        categorical_covariate_keys, "categorical_covariate_keys"
    )
    continuous_covariate_keys = listed_columns(
        continuous_covariate_keys, "continuous_covariate_keys"
    )
    setup_method_args = cls._get_setup_method_args(**locals())
    if (source := kwargs.get("source_registry")) is not None:
        check_has_all(mdata, likelihoods)
    check_modalities(
        mdata, likelihoods, layers, may_lack_any=source is not None, image_keys=image_keys
    )
    if source is not None:
        check_fit(mdata, source, new_categories=bool(kwargs.get("extend_categories")))
    setup_args = setup_method_args["setup_args"]
    categorical = setup_args["categorical_covariate_keys"] or []
    check_categories(mdata, [batch_key, labels_key, *categorical], batch_key)
    if source is None:
        check_all_used(mdata, [batch_key, *categorical])
    check_values(mdata, setup_args["continuous_covariate_keys"] or [], positive=False)
    counts_layers = {name: layers.get(name) for name in likelihoods if name not in image_keys}
    check_batches(mdata, counts_layers, batch_key, keep_absent_features)
    chosen = _fields(counts_layers, setup_args)
    if _get_adata_minify_type(mdata) is not None:
        chosen += minified_fields(likelihoods)
    make_actual(mdata)
    manager = CellManager(chosen, setup_method_args, MAY_BE_UNPAIRED)
    with untouched_on_failure(mdata):
        manager.register_fields(mdata, **kwargs)
    cls.register_manager(manager)


def _fields(layers: Mapping[str, str | None], setup_args: Mapping[str, Any]) -> list[Any]:
    """Return scvi-tools' fields of counts, images and covariates."""
    keys = REGISTRY_KEYS
    # all counts are checked before and need no conversion
    as_is = {"is_count_data": False, "correct_data_format": False}
    images = setup_args["image_keys"].items()
    categorical, continuous = (
        setup_args[f"{kind}_covariate_keys"] for kind in ("categorical", "continuous")
    )
    return [
        *(fields.MuDataLayerField(k, v, mod_key=k, **as_is) for k, v in layers.items()),
        *(MuDataImageField(name, key, mod_key=name) for name, key in images),
        fields.MuDataCategoricalObsField(keys.BATCH_KEY, setup_args["batch_key"]),
        fields.MuDataCategoricalObsField(keys.LABELS_KEY, setup_args["labels_key"]),
        fields.MuDataCategoricalJointObsField(keys.CAT_COVS_KEY, categorical),
        fields.MuDataNumericalJointObsField(keys.CONT_COVS_KEY, continuous),
    ]


def check_has_all(mdata: MuData, modalities: Iterable[str]) -> None:
    """Raise a KeyError if an object lacks a model's modality. A modality may have no cells."""
    if missing := [name for name in modalities if name not in mdata.mod]:
        raise KeyError(
            f"`mdata` lacks the modality {missing[0]!r} of the model. To add this modality without "
            "cells, use JointVI.prepare_query_mudata(mdata, model)"
        )


def minified_fields(modalities: Iterable[str]) -> list[Any]:
    """Return the additional fields of a minified object."""
    type_key = REGISTRY_KEYS.MINIFY_TYPE_KEY
    chosen: list[Any] = [fields.StringUnsField(type_key, _ADATA_MINIFY_TYPE_UNS_KEY)]
    for name in modalities:
        keys, columns = expert_keys(name), MINIFIED_COLUMNS
        chosen += [
            fields.MuDataObsmField(keys.mean, columns.mean, mod_key=name),
            fields.MuDataObsmField(keys.variance, columns.variance, mod_key=name),
            fields.MuDataNumericalObsField(keys.total, columns.total, mod_key=name),
        ]
    return chosen


def check_fit(mdata: MuData, registry: dict[str, Any], *, new_categories: bool = False) -> None:
    """Check features and, unless ``new_categories``, categories against a model's registry."""
    image_keys = registry["setup_args"].get("image_keys") or {}
    for name, key in image_keys.items():
        check_format(mdata[name], registry, name, key)
    for name in registry["setup_args"]["likelihoods"]:
        if name in image_keys:
            continue
        subject = f"The {{}} features of mdata[{name!r}]"
        known = np.asarray(registry["field_registries"][name]["state_registry"]["column_names"])
        check_genes(mdata[name], known, subject, "JointVI.prepare_query_mudata(mdata, model)")
    if not new_categories:
        check_all_known(mdata, registry, "JointVI.load_query_data(mdata, model)")
