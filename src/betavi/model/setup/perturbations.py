"""Registration of a perturbation screen with scvi-tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from betavi._tables import check_flag
from betavi.model.setup.anndata import register
from betavi.model.setup.check_obs import listed_columns

if TYPE_CHECKING:
    from anndata import AnnData


def setup_anndata(
    cls: type[Any],
    /,
    adata: AnnData,
    perturbation_key: str,
    control: str = "control",
    dose_key: str | None = None,
    separator: str = "+",
    context_key: str | None = None,
    replicate_key: str | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
    labels_key: str | None = None,
    categorical_covariate_keys: list[str] | None = None,
    continuous_covariate_keys: list[str] | None = None,
    keep_empty_cells: bool = False,
    **kwargs: Any,
) -> None:
    """Register the counts and the conditions of a perturbation screen.

    Parameters
    ----------
    adata
        Cells by genes, with raw counts: dense or sparse, in memory or backed. A view is copied.
    perturbation_key
        Column of ``obs`` with the condition of each cell: the control, a perturbation such as
        ``"A"``, or a combination such as ``"A+B"``.
    control
        Name of the condition without perturbation. It may also be a part of a name: ``"A+control"``.
    dose_key
        Column of ``obs`` with doses above 0: numbers, or for combinations also text, ``"1+0.5"``.
        Those of control cells have no effect, but must be numbers of at least 0, such as 0.
    separator
        Text between the names of a combination, and between its doses.
    context_key
        Column of ``obs`` with contexts in which effects may differ, such as cell types or lines.
    replicate_key
        Column of ``obs`` with replicates, such as guides, wells, animals or donors. The noise
        between replicates of a condition widens all intervals.
    batch_key, labels_key, categorical_covariate_keys, continuous_covariate_keys
        Columns of ``obs``, as in :meth:`betavi.BetaVI.setup_anndata`.
    layer
        Layer with the counts. If None, ``X``.
    keep_empty_cells
        Allow cells without counts. The model learns nothing from these cells.
    **kwargs
        Passed to scvi-tools' ``AnnDataManager.register_fields``.

    Raises
    ------
    TypeError
        If ``adata`` is a MuData.
    KeyError
        If ``adata`` lacks a layer or a column.
    ValueError
        If counts are not valid, as in :meth:`betavi.BetaVI.setup_anndata`. Also if a cell has no
        condition, no cell is a control, or a dose is not a number. ``adata`` is then unchanged.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_perturbations(n_cells=300, n_perturbations=3)
    >>> betavi.EffectVI.setup_anndata(adata, perturbation_key="perturbation")
    """
    check_flag("keep_empty_cells", keep_empty_cells)
    categorical_covariate_keys = listed_columns(
        categorical_covariate_keys, "categorical_covariate_keys"
    )
    continuous_covariate_keys = listed_columns(
        continuous_covariate_keys, "continuous_covariate_keys"
    )
    register(cls, adata, cls._get_setup_method_args(**locals()), kwargs)
