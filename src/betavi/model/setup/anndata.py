"""Registration of an object's fields with scvi-tools, after every check has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.data._utils import _get_adata_minify_type
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
    NumericalObsField,
)

from betavi.data import CellManager
from betavi.model.setup.check_counts import check_counts, check_is_anndata, refuse
from betavi.model.setup.check_obs import (
    check_all_used,
    check_categories,
    check_genes,
    check_known,
    check_values,
    warn_repeated_genes,
)
from betavi.model.setup.messages import warn
from betavi.model.setup.registered import untouched_on_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from scvi._types import AnnOrMuData

_STATE = "state_registry"


def setup_anndata(
    cls: type[Any],
    /,
    adata: AnnData,
    layer: str | None = None,
    batch_key: str | None = None,
    labels_key: str | None = None,
    size_factor_key: str | None = None,
    categorical_covariate_keys: list[str] | None = None,
    continuous_covariate_keys: list[str] | None = None,
    keep_empty_cells: bool = False,
    **kwargs: Any,
) -> None:
    """Register the counts and the covariates of an object.

    Parameters
    ----------
    adata
        Cells by genes, raw counts: dense or sparse, in memory or backed. A view is made actual.
    layer
        The layer with the counts; ``X`` if None.
    batch_key, labels_key
        Columns of ``obs`` with each cell's batch and label.
    size_factor_key
        Column of ``obs`` with positive size factors, used in place of the library size.
    categorical_covariate_keys, continuous_covariate_keys
        Columns of ``obs`` with further covariates.
    keep_empty_cells
        Allow cells without a single count; the model has nothing to learn from them.
    **kwargs
        Passed to scvi-tools' ``AnnDataManager.register_fields``.

    Raises
    ------
    TypeError, KeyError
        If ``adata`` is a MuData, or lacks a layer or a column.
    ValueError
        If counts are negative, not finite or no numbers, a cell has none, or a covariate is missing
        for a cell or has a category without cells. The message names the cell and the gene, and
        ``adata`` is unchanged.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    """
    setup_method_args = cls._get_setup_method_args(**locals())
    setup_args, source = setup_method_args["setup_args"], kwargs.get("source_registry")
    if source is None:
        check_object(adata, setup_args, warn_empty_cells=refuse, warn_all_zero_genes=warn)
        check_all_used(adata, [batch_key, *(categorical_covariate_keys or [])])
        warn_repeated_genes(adata.var_names)
    else:
        check_object(adata, setup_args, warn_empty_cells=warn)
        check_fits(adata, source, new_categories=kwargs.get("extend_categories", False))
    if adata.is_view:
        adata._init_as_actual(adata.copy())
    fields = [
        # the counts were checked above, whole, and are read as they are
        LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False, correct_data_format=False),
        CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
        CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, labels_key),
        NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, required=False),
        CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
        NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
    ]
    if (minify_type := _get_adata_minify_type(adata)) is not None:
        fields += cls._get_fields_for_adata_minification(minify_type)
    manager = CellManager(fields=fields, setup_method_args=setup_method_args)
    with untouched_on_failure(adata):
        manager.register_fields(adata, **kwargs)
    cls.register_manager(manager)


def check_object(
    adata: AnnData,
    setup_args: dict[str, Any],
    warn_empty_cells: Callable[[str], None] | None = None,
    warn_all_zero_genes: Callable[[str], None] | None = None,
) -> None:
    """Check an object against the arguments of ``setup_anndata``; see there for errors.

    Cells and genes without counts go to ``warn_empty_cells`` and ``warn_all_zero_genes``, if given.
    """
    check_is_anndata(adata)
    minified = _get_adata_minify_type(adata) is not None
    if minified or setup_args.get("keep_empty_cells", False):
        warn_empty_cells = None
    check_counts(
        adata, setup_args["layer"], warn_empty_cells, None if minified else warn_all_zero_genes
    )
    batch_key, labels_key = setup_args["batch_key"], setup_args["labels_key"]
    further = _columns(setup_args, "categorical_covariate_keys")
    check_categories(adata, [batch_key, labels_key, *further], batch_key)
    size_factor = setup_args["size_factor_key"]
    check_values(adata, [] if size_factor is None else [size_factor], positive=True)
    check_values(adata, _columns(setup_args, "continuous_covariate_keys"), positive=False)


def _columns(setup_args: dict[str, Any], argument: str) -> list[str]:
    columns = setup_args[argument] or []
    if isinstance(columns, str):
        raise TypeError(f"{argument} is a list of columns: [{columns!r}], not {columns!r}.")
    return list(columns)


def check_fits(adata: AnnData, registry: dict[str, Any], *, new_categories: bool = False) -> None:
    """Check genes, and categories unless new ones are allowed, against a model's registry."""
    check_genes(adata, registry["field_registries"][REGISTRY_KEYS.X_KEY][_STATE]["column_names"])
    if not new_categories:
        check_all_known(adata, registry, "BetaVI.load_query_data(adata, model)")


def check_all_known(adata: AnnOrMuData, registry: dict[str, Any], mapping: str) -> None:
    """Refuse covariates with categories unknown to a model; ``mapping`` is the remedy."""
    args, fields = registry["setup_args"], registry["field_registries"]
    keys = {REGISTRY_KEYS.BATCH_KEY: "batch_key", REGISTRY_KEYS.LABELS_KEY: "labels_key"}
    for key, argument in keys.items():
        if args[argument] is not None:
            check_known(adata, args[argument], fields[key][_STATE]["categorical_mapping"], mapping)
    for column, known in fields[REGISTRY_KEYS.CAT_COVS_KEY][_STATE].get("mappings", {}).items():
        check_known(adata, column, known, mapping)
