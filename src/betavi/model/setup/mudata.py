"""Registration of a MuData's fields with scvi-tools, after every check has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManagerValidationCheck
from scvi.data._constants import _ADATA_MINIFY_TYPE_UNS_KEY
from scvi.data._utils import _get_adata_minify_type
from scvi.data.fields import (
    MuDataCategoricalJointObsField,
    MuDataCategoricalObsField,
    MuDataLayerField,
    MuDataNumericalJointObsField,
    MuDataNumericalObsField,
    MuDataObsmField,
    StringUnsField,
)

from betavi._mudata import make_actual
from betavi.data import CellManager, ExpertKeys, expert_keys
from betavi.model.setup.anndata import check_all_known
from betavi.model.setup.check_features import check_batches
from betavi.model.setup.check_mudata import check_is_mudata, check_modalities
from betavi.model.setup.check_obs import check_all_used, check_categories, check_genes, check_values
from betavi.model.setup.registered import untouched_on_failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mudata import MuData

MAPPING = "JointVI.load_query_data(mdata, model)"
MAY_BE_UNPAIRED = AnnDataManagerValidationCheck(check_fully_paired_mudata=False)

MINIFIED_COLUMNS = ExpertKeys("betavi_expert_mean", "betavi_expert_variance", "betavi_total")
"""Expert of a modality of a minified object, in its ``obsm``, and totals of counts, in its ``obs``."""


def refuse_anndata(_cls: Any, *_args: Any, **_kwargs: Any) -> None:
    """Raise a TypeError: use :meth:`setup_mudata`, or :class:`betavi.BetaVI` for one modality."""
    raise TypeError(
        "JointVI is of several modalities: JointVI.setup_mudata(mdata, likelihoods={...}). One "
        "is a matter of BetaVI.setup_anndata(adata)."
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
    **kwargs: Any,
) -> None:
    """Register the modalities of an object, with their counts and covariates.

    Cells are matched by name. A cell that lacks a modality is not in ``mdata.mod[name]``; it needs
    no zeros there.

    Parameters
    ----------
    mdata
        Cells by modalities, of raw counts.
    likelihoods
        By modality, a key of :data:`betavi.likelihoods.LIKELIHOODS`:
        ``{"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}``. Others are ignored.
    layers
        By modality, the layer with the counts; ``X`` of those that are not named.
    batch_key, labels_key, categorical_covariate_keys, continuous_covariate_keys
        Columns of ``mdata.obs`` with each cell's batch, label and further covariates.
    keep_absent_features
        Accept features that are absent in a whole batch and frequent in others as biology. If
        False, they are refused if they are more than a hundredth of a modality's.
    **kwargs
        Passed to scvi-tools' ``AnnDataManager.register_fields``.

    Raises
    ------
    TypeError, KeyError
        If ``mdata`` is no MuData, or lacks a modality, a layer or a column.
    ValueError
        If counts are impossible, names repeat, a cell has no modality, a covariate is missing for a
        cell or has a category without cells, or features were measured in some batches only.
        ``mdata`` is unchanged.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.simulate_multiome(n_cells=100)
    >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    """
    # the user's own dictionaries may change
    likelihoods, layers = dict(likelihoods), dict(layers or {})
    setup_method_args = cls._get_setup_method_args(**locals())
    check_is_mudata(mdata)
    source = kwargs.get("source_registry")
    if source is not None:
        check_has_all(mdata, likelihoods)
    check_modalities(mdata, likelihoods, layers, may_lack_any=source is not None)
    if source is not None:
        check_fit(mdata, source, new_categories=bool(kwargs.get("extend_categories")))
    categorical = list(categorical_covariate_keys or [])
    check_categories(mdata, [batch_key, labels_key, *categorical], batch_key)
    if source is None:
        check_all_used(mdata, [batch_key, *categorical])
    check_values(mdata, continuous_covariate_keys or [], positive=False)
    places = {name: layers.get(name) for name in likelihoods}
    check_batches(mdata, places, batch_key, keep_absent_features)
    fields = [
        # the counts were checked above, whole, and are read as they are
        MuDataLayerField(
            name, layers.get(name), mod_key=name, is_count_data=False, correct_data_format=False
        )
        for name in likelihoods
    ]
    fields += [
        MuDataCategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
        MuDataCategoricalObsField(REGISTRY_KEYS.LABELS_KEY, labels_key),
        MuDataCategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
        MuDataNumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
    ]
    if _get_adata_minify_type(mdata) is not None:
        fields += minified_fields(likelihoods)
    make_actual(mdata)
    manager = CellManager(fields, setup_method_args, MAY_BE_UNPAIRED)
    with untouched_on_failure(mdata):
        manager.register_fields(mdata, **kwargs)
    cls.register_manager(manager)


def check_has_all(mdata: MuData, modalities: Iterable[str]) -> None:
    """Raise a KeyError unless an object has a model's modalities, even without cells."""
    if lacking := [name for name in modalities if name not in mdata.mod]:
        raise KeyError(
            f"The MuData has no modality {lacking[0]!r}, and the model has. "
            "JointVI.prepare_query_mudata(mdata, model) adds it, with no cells."
        )


def minified_fields(modalities: Iterable[str]) -> list[Any]:
    """Return the additional fields of a minified object with these modalities."""
    fields: list[Any] = [StringUnsField(REGISTRY_KEYS.MINIFY_TYPE_KEY, _ADATA_MINIFY_TYPE_UNS_KEY)]
    for name in modalities:
        keys, columns = expert_keys(name), MINIFIED_COLUMNS
        fields += [
            MuDataObsmField(keys.mean, columns.mean, mod_key=name),
            MuDataObsmField(keys.variance, columns.variance, mod_key=name),
            MuDataNumericalObsField(keys.total, columns.total, mod_key=name),
        ]
    return fields


def check_fit(mdata: MuData, registry: dict[str, Any], *, new_categories: bool = False) -> None:
    """Check features, and categories unless new ones are allowed, against a model's registry."""
    args, fields = registry["setup_args"], registry["field_registries"]
    for name in args["likelihoods"]:
        words = f"The {{}} features of mdata[{name!r}]"
        known = np.asarray(fields[name]["state_registry"]["column_names"])
        check_genes(mdata[name], known, words, "JointVI.prepare_query_mudata(mdata, model)")
    if not new_categories:
        check_all_known(mdata, registry, MAPPING)
