"""Genes along a path, and the density of cells there."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter
from mudata import MuData

from betavi._tables import close_matches
from betavi.pl._style import VERMILION, check_is, finish, styled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

LEVEL = 0.05


@styled
def latent_path(
    adata: AnnData,
    genes: Sequence[str] | int = 30,
    axes: Sequence[Axes] | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> np.ndarray:
    """Draw the expression of genes along a path, and the p-value of each of its steps.

    Parameters
    ----------
    adata
        From :meth:`betavi.BetaVI.interpolate`, or a modality of what a joint model returns.
    genes
        Names, in this order; or the number of genes to choose. Those that change most are chosen,
        switches first and rarely expressed genes last, and ordered by the place of their change.
    axes, show, save
        Two axes (a new figure if None), show the figure, and a file to save it to.

    Returns
    -------
    The axes, ``(2,)``: the p-value of each step as a cell, with a line at 0.05; and a heat map of
    the log expression of each gene, scaled to its own range.

    Raises
    ------
    KeyError
        If a gene is unknown, or the object is no path.
    TypeError
        If it has several assays, or is no object.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> ends = adata.obs_names[:2]
    >>> path = model.interpolate(*ends, show_progress=False)
    >>> len(betavi.pl.latent_path(path, ["gene_0", "gene_1"])[1].get_yticks())
    2
    """
    check_is(adata, "var", "adata is what model.interpolate() returns")
    if isinstance(adata, MuData):
        raise TypeError(f"Draw one assay of it: path[{next(iter(adata.mod))!r}].")
    if "switch_at" not in adata.var or "step" not in adata.obs:
        raise KeyError("This is no path: it has no 'switch_at' in var. See interpolate().")
    shown = _shown(adata, genes)
    if axes is None:
        height = 2.2 + 0.17 * len(shown)
        figure = plt.figure(figsize=(6, height), layout="constrained")
        axes = figure.subplots(2, 1, height_ratios=[1.4, height - 1.4], sharex=True)
    support, heat = np.asarray(axes)
    at = adata.obs["step"].to_numpy()
    support.plot(at, adata.obs["p_value"], color="k", marker="o", ms=3, lw=1)
    support.axhline(LEVEL, color=VERMILION, ls="--", lw=1)
    few = f"dashed: {LEVEL:.0%} of held-out cells lie in places this sparse"
    support.set_title(few, fontsize="small", loc="left", color=VERMILION)
    support.set(ylabel="p-value", ylim=(-0.03, 1.03))
    logs = np.log1p(_per_cell(adata[:, shown], adata))
    low, high = logs.min(axis=0), logs.max(axis=0)
    scaled = (logs - low) / np.maximum(high - low, 1e-12)
    half = 0.5 / (len(at) - 1)
    extent = (-half, 1 + half, len(shown) - 0.5, -0.5)
    image = heat.imshow(scaled.T, aspect="auto", cmap="cividis", extent=extent)
    heat.set_yticks(range(len(shown)), shown, fontsize="small")
    heat.set_xlabel("share of the way, from start to end")
    is_switch = adata.var.loc[shown, "is_switch"].to_numpy()
    switches = adata.var.loc[shown, "switch_at"].to_numpy()
    rows = np.arange(len(shown))
    heat.plot(switches[is_switch], rows[is_switch], "|", color="w", ms=8, mew=2)
    if is_switch.any():
        words = "white tick: a switch is halfway through its change"
        heat.set_title(words, fontsize="small", loc="left")
    bar = heat.figure.colorbar(image, ax=heat, shrink=0.6, label="log expression,\nof its range")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    return finish(np.asarray(axes), show, save)


def _per_cell(some: AnnData, whole: AnnData) -> np.ndarray:
    # one total for all steps: of proteins and detection it is part of what changes on the way
    total = np.asarray(whole.X).sum(axis=1).mean()
    return 1e4 * np.asarray(some.X) / total


def _shown(adata: AnnData, genes: Sequence[str] | int) -> list[str]:
    """Return the genes to draw."""
    if isinstance(genes, str):
        genes = [genes]
    if not isinstance(genes, (int, Integral)):
        for gene in genes:
            if gene not in adata.var_names:
                raise KeyError(f"There is no gene {gene!r}. {close_matches(gene, adata.var_names)}")
        return list(genes)
    table = adata.var.assign(size=adata.var["log2_fold_change"].abs())
    # the fold change of a rarely expressed gene says little
    largest = np.asarray(adata.X).max(axis=0)
    table["size"] *= largest / (largest + 1)
    best = table.sort_values(["is_switch", "size"], ascending=False).index[:genes]
    return list(table.loc[best].sort_values(["direction", "switch_at"]).index)
