"""Plot of explained dimensions: nats of each, and a heat map of their genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm

from betavi._tables import check_whole
from betavi.pl import _style
from betavi.pl.interactions import DIVERGING, MINUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from betavi.diagnostics import ExplainedDimensions
    from betavi.pl._style import Panels, SavePath

COLOURS = {"used": _style.USED, "unclear": _style.PALE, "noise": _style.NOISE,
           "depth": _style.NOISE}  # fmt: skip
"""Colours of statuses. Inactive dimensions are grey."""

SIGNS = {"+": "+", "-": MINUS}


@_style.styled
def dimensions(
    explained: ExplainedDimensions,
    n_genes: int = 3,
    axes: Panels = None,
    show: bool = False,
    save: SavePath = None,
) -> np.ndarray:
    """Draw the nats of each latent dimension, and a heat map of the genes that they change.

    Left: increase in distortion if the dimension is the same in all cells, with an error bar of two
    standard errors. The dimensions are sorted by this increase. Their names show the label that
    they separate best, and unused dimensions show their status. Right: log2 fold change of the top
    genes of each dimension and sign. A gene of one dimension may also change along others.

    Parameters
    ----------
    explained
        Result of ``model.explain_dimensions()``.
    n_genes
        Number of top genes for each dimension and sign.
    axes
        Two axes. If None, a new figure is made.
    show
        Show the figure.
    save
        File to save the figure to.

    Returns
    -------
    Axes, ``(2,)``. Left: nats. Right: heat map.

    Raises
    ------
    TypeError
        If ``explained`` is not a result of ``explain_dimensions``.
    ValueError
        If ``n_genes`` is not a whole number of at least 1, or ``axes`` are not two.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=2)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> betavi.pl.dimensions(model.explain_dimensions(show_progress=False)).shape
    (2,)
    """
    call = "model.explain_dimensions()"
    _style.check_result("explained", explained, call, attribute="fold_changes")
    check_whole("n_genes", n_genes)
    table = explained.dimensions.sort_values("distortion_increase", ascending=False)
    values = _top(explained, table.index, n_genes)
    size = (5.5 + 0.24 * values.shape[1], max(2.5 + 0.17 * len(values), 1.2 + 0.24 * len(table)))
    new = {"width_ratios": [1, max(1.5, 0.12 * values.shape[1])]}
    axes = np.ravel(_style.axes_or_new(axes, size, 1, 2, gridspec_kw=new))
    _bars(axes[0], table)
    _heat_map(axes[1], values)
    return _style.finish(axes, show, save)


def _top(explained: ExplainedDimensions, order: pd.Index, n_genes: int) -> pd.DataFrame:
    """Return the fold changes of the top genes, in the order of the dimensions."""
    place = {dimension: number for number, dimension in enumerate(order)}
    genes = explained.genes[explained.genes["rank"] <= n_genes]
    genes = genes.sort_values("dimension", key=lambda column: column.map(place), kind="stable")
    rows = pd.MultiIndex.from_frame(genes[["modality", "gene"]]).unique()
    changes = explained.fold_changes
    columns = np.argsort([place[key] for key in changes.columns.get_level_values(0)], kind="stable")
    # names of genes may repeat in an object
    return changes[~changes.index.duplicated()].iloc[:, columns].reindex(rows)


def _names_of_steps(values: pd.DataFrame) -> list[str]:
    levels = (values.columns.get_level_values(name) for name in ("dimension", "sign"))
    return [f"{dimension}{SIGNS[sign]}" for dimension, sign in zip(*levels, strict=True)]


def _bars(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the increase in distortion of each dimension."""
    colours = [COLOURS.get(status, _style.GREY) for status in table["status"]]
    places, nats = np.arange(len(table)), table["distortion_increase"]
    ax.barh(places, nats, color=colours, xerr=2 * table["distortion_increase_error"], height=0.7)
    names = []
    for dimension, row in table.iterrows():
        notes = [] if row["status"] == "used" else [row["status"]]
        if "label" in table:
            notes.append(f"{row['label']}: {row['label_information']:.2f}")
        names.append(f"{dimension}  ({', '.join(notes)})" if notes else f"{dimension}")
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.set_xlabel("increase in distortion without\nthe dimension, nats per cell")
    ax.set_ylabel("dimension (best label: information)" if "label" in table else "dimension")


def _heat_map(ax: Axes, values: pd.DataFrame) -> None:
    """Draw the fold changes, with white for no change."""
    if values.empty:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "No dimension has genes,\nbecause none is used.", ha="center")
        return
    limit = max(float(np.nanmax(np.abs(values.to_numpy()))), 1e-3)
    image = ax.imshow(
        values, cmap=DIVERGING, norm=TwoSlopeNorm(0, -limit, limit), aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    modalities, genes = (values.index.get_level_values(name) for name in ("modality", "gene"))
    several = len(modalities.unique()) > 1
    names = [f"{g} ({m})" if several else g for g, m in zip(genes, modalities, strict=True)]
    ax.set_yticks(range(len(values)), names, fontsize=7)
    ax.set_xticks(range(values.shape[1]), _names_of_steps(values),
                  rotation=90, fontsize=8)  # fmt: skip
    ax.tick_params(length=0)
    ax.set_xlabel("dimension and direction of the step")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.6, aspect=20)
    bar.set_label("log2 fold change by the step")
