"""Registration of an AnnData with scvi-tools, after all checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.data import fields
from scvi.data._constants import _MODEL_NAME_KEY
from scvi.data._utils import _get_adata_minify_type

from betavi._tables import check_flag
from betavi.data import CellManager
from betavi.data.images import ImageField
from betavi.model.setup import check_obs
from betavi.model.setup.check_counts import check_counts, check_is_anndata, refuse
from betavi.model.setup.check_depth import warn_deep_cells
from betavi.model.setup.check_images import check_format, check_images
from betavi.model.setup.conditions import (
    check_conditions,
    check_conditions_known,
    check_is_screen,
    condition_fields,
)
from betavi.model.setup.messages import warn
from betavi.model.setup.registered import untouched_on_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
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
    image_key: str | None = None,
    **kwargs: Any,
) -> None:
    """Register the counts and covariates of an AnnData.

    Parameters
    ----------
    adata
        Cells by genes, with raw counts: dense or sparse, in memory or backed. A view is copied.
    layer
        Layer with the counts. If None, ``X``.
    batch_key
        Column of ``obs`` with the batch of each cell.
    labels_key
        Column of ``obs`` with the label of each cell.
    size_factor_key
        Column of ``obs`` with positive size factors, which replace the library size.
    categorical_covariate_keys, continuous_covariate_keys
        Columns of ``obs`` with further covariates.
    keep_empty_cells
        Allow cells without counts, or constant images. The model learns nothing from these cells.
    image_key
        Only for images in place of counts: entry of ``obsm`` with the images, ``(n_cells, n_channels,
        height, width)``, whole numbers or not. Sides are multiples of 16 from 32 to 128 pixels.
        ``X`` is then not read. Pass ``gene_likelihood="band_normal"`` to the model, or another key of
        :data:`betavi.likelihoods.IMAGE_LIKELIHOODS`.
    **kwargs
        Passed to scvi-tools' ``AnnDataManager.register_fields``.

    Raises
    ------
    TypeError
        If ``adata`` is a MuData.
    KeyError
        If ``adata`` lacks a layer, images or a column.
    ValueError
        If counts are negative, not finite or not numeric, a cell has no counts, a covariate is
        missing for a cell, or a category has no cells. Also if images have another shape or size, a
        value is not finite, an image or a channel is constant, or ``layer`` or ``size_factor_key``
        is given with images. ``adata`` is then unchanged.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    """
    check_flag("keep_empty_cells", keep_empty_cells)
    categorical_covariate_keys = check_obs.listed_columns(
        categorical_covariate_keys, "categorical_covariate_keys"
    )
    continuous_covariate_keys = check_obs.listed_columns(
        continuous_covariate_keys, "continuous_covariate_keys"
    )
    register(cls, adata, cls._get_setup_method_args(**locals()), kwargs)


def register(
    cls: type[Any], adata: AnnData, setup_method_args: dict[str, Any], kwargs: dict[str, Any]
) -> None:
    """Check an AnnData, and register its fields. ``kwargs`` are those of ``setup_anndata``."""
    setup_args, source = setup_method_args["setup_args"], kwargs.get("source_registry")
    batch_key, covariates = setup_args["batch_key"], setup_args["categorical_covariate_keys"]
    if source is None:
        totals = check_object(adata, setup_args, warn_empty_cells=refuse, warn_all_zero_genes=warn)
        if totals is not None:
            warn_deep_cells(totals, adata.obs_names, "adata")
        check_obs.check_all_used(adata, [batch_key, *(covariates or [])])
        check_is_screen(adata, setup_args)
        if setup_args.get("image_key") is None:
            check_obs.warn_repeated_genes(adata.var_names)
    else:
        check_object(adata, setup_args, warn_empty_cells=warn)
        check_fits(adata, source, new_categories=kwargs.get("extend_categories", False))
    if adata.is_view:
        adata._init_as_actual(adata.copy())
    keys = REGISTRY_KEYS
    image_key = setup_args.get("image_key")
    chosen = [
        # all counts were checked above and need no conversion
        fields.LayerField(
            keys.X_KEY, setup_args["layer"], is_count_data=False, correct_data_format=False
        )
        if image_key is None
        else ImageField(keys.X_KEY, image_key),
        fields.CategoricalObsField(keys.BATCH_KEY, batch_key),
        fields.CategoricalObsField(keys.LABELS_KEY, setup_args["labels_key"]),
        fields.NumericalObsField(
            keys.SIZE_FACTOR_KEY, setup_args.get("size_factor_key"), required=False
        ),
        fields.CategoricalJointObsField(keys.CAT_COVS_KEY, covariates),
        fields.NumericalJointObsField(keys.CONT_COVS_KEY, setup_args["continuous_covariate_keys"]),
        *condition_fields(setup_args),
    ]
    if (minify_type := _get_adata_minify_type(adata)) is not None:
        chosen += cls._get_fields_for_adata_minification(minify_type)
    manager = CellManager(fields=chosen, setup_method_args=setup_method_args)
    with untouched_on_failure(adata):
        manager.register_fields(adata, **kwargs)
    cls.register_manager(manager)


def check_object(
    adata: AnnData,
    setup_args: dict[str, Any],
    warn_empty_cells: Callable[[str], None] | None = None,
    warn_all_zero_genes: Callable[[str], None] | None = None,
) -> np.ndarray | None:
    """Check an object against the arguments of ``setup_anndata``. Raises the same errors.

    Returns the total count of each cell, ``(n_cells,)``. None for images.

    The ``warn_`` arguments are functions of a message. They receive the messages about cells and
    about genes without counts. None skips these messages.
    """
    check_is_anndata(adata)
    minified = _get_adata_minify_type(adata) is not None
    if minified or setup_args.get("keep_empty_cells", False):
        warn_empty_cells = None
    totals = None
    if setup_args.get("image_key") is None:
        totals = check_counts(
            adata, setup_args["layer"], warn_empty_cells, None if minified else warn_all_zero_genes
        )
    else:
        _check_images_alone(adata, setup_args, warn_empty_cells, is_new=bool(warn_all_zero_genes))
    batch_key, labels_key = setup_args["batch_key"], setup_args["labels_key"]
    categorical = setup_args["categorical_covariate_keys"] or []
    check_obs.check_categories(adata, [batch_key, labels_key, *categorical], batch_key)
    check_conditions(adata, setup_args)
    size_factor = setup_args.get("size_factor_key")
    check_obs.check_values(adata, [] if size_factor is None else [size_factor], positive=True)
    check_obs.check_values(adata, setup_args["continuous_covariate_keys"] or [], positive=False)
    return totals


def _check_images_alone(
    adata: AnnData,
    setup_args: dict[str, Any],
    report_constant: Callable[[str], None] | None,
    *,
    is_new: bool,
) -> None:
    for argument in ("layer", "size_factor_key"):
        if setup_args[argument] is not None:
            raise ValueError(
                f"`{argument}` is for counts, but `image_key` registers images. Leave `{argument}` out. "
                "To model counts and images together, use JointVI."
            )
    check_images(adata, setup_args["image_key"], "adata", report_constant, warn_saturated=is_new)


def check_fits(adata: AnnData, registry: dict[str, Any], *, new_categories: bool = False) -> None:
    """Check that the genes and, unless ``new_categories``, the categories fit a registry."""
    if (image_key := registry["setup_args"].get("image_key")) is not None:
        check_format(adata, registry, REGISTRY_KEYS.X_KEY, image_key)
    else:
        genes = registry["field_registries"][REGISTRY_KEYS.X_KEY][_STATE]["column_names"]
        check_obs.check_genes(adata, genes)
    if new_categories:
        check_conditions_known(adata, registry, new_replicates=True)
    else:
        name = registry.get(_MODEL_NAME_KEY, "BetaVI")
        check_all_known(adata, registry, f"{name}.load_query_data(adata, model)")


def check_all_known(adata: AnnOrMuData, registry: dict[str, Any], mapping: str) -> None:
    """Refuse categories that are unknown to a model.

    ``mapping`` is the code that adds categories.
    """
    args = registry["setup_args"]
    states = {key: field[_STATE] for key, field in registry["field_registries"].items()}
    keys = {REGISTRY_KEYS.BATCH_KEY: "batch_key", REGISTRY_KEYS.LABELS_KEY: "labels_key"}
    for key, argument in keys.items():
        if (column := args[argument]) is not None:
            check_obs.check_known(adata, column, states[key]["categorical_mapping"], mapping)
    for column, known in states[REGISTRY_KEYS.CAT_COVS_KEY].get("mappings", {}).items():
        check_obs.check_known(adata, column, known, mapping)
    check_conditions_known(adata, registry)
