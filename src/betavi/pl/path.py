"""Plot of gene expression and p-values along a path."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import PercentFormatter
from mudata import MuData

from betavi._tables import close_matches
from betavi.pl import _style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from betavi.pl._style import Panels, SavePath

LEVEL = 0.05


@_style.styled
def latent_path(
    adata: AnnData,
    genes: Sequence[str] | int = 30,
    axes: Panels = None,
    show: bool = False,
    save: SavePath = None,
) -> np.ndarray:
    """Draw the p-value of each step of a path, and the expression of genes along it.

    Parameters
    ----------
    adata
        Result of :meth:`betavi.BetaVI.interpolate`, or one modality of the result of a joint model.
    genes
        Gene names, in the order of the rows. Or the number of genes to choose: switch genes with
        the largest change come first, and rarely expressed genes have a lower weight. Chosen genes
        are ordered by the position of their change.
    axes
        Two axes. If None, a new figure is made.
    show
        Show the figure.
    save
        File to save the figure to.

    Returns
    -------
    Axes, ``(2,)``. Top: p-value of the position of each step, with a line at 0.05. Bottom: heat map
    of log expression. Each gene is scaled to its own range.

    Raises
    ------
    KeyError
        If a gene is unknown, or ``adata`` is not a path.
    TypeError
        If ``adata`` has several modalities.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> path = model.interpolate("cell_0", "cell_1", show_progress=False)
    >>> len(betavi.pl.latent_path(path, ["gene_0", "gene_1"])[1].get_yticks())
    2
    """
    _style.check_result("adata", adata, "model.interpolate()", "var")
    if isinstance(adata, MuData):
        raise TypeError(
            f"`adata` has several modalities. Pass one, for example path[{next(iter(adata.mod))!r}]"
        )
    if "switch_at" not in adata.var or "step" not in adata.obs:
        raise KeyError(
            "`adata` has no 'switch_at' or 'step', so it is not a path. Pass the result of "
            "model.interpolate()"
        )
    shown = _shown(adata, genes)
    height = 2.2 + 0.17 * len(shown)
    ratios = [1.4, height - 1.4]
    panels = np.asarray(
        _style.axes_or_new(axes, (6, height), 2, 1, height_ratios=ratios, sharex=True)
    )
    support, heat = panels
    at = adata.obs["step"].to_numpy()
    support.plot(at, adata.obs["p_value"], color="k", marker="o", ms=3, lw=1)
    support.axhline(LEVEL, color=_style.VERMILION, ls="--", lw=1)
    below = f"dashed line: {LEVEL:.0%} of held-out cells are at this density or lower"
    support.set_title(below, fontsize="small", loc="left", color=_style.VERMILION)
    support.set(ylabel="p-value", ylim=(-0.03, 1.03))
    logs = np.log1p(_per_cell(adata[:, shown], adata))
    low, high = logs.min(axis=0), logs.max(axis=0)
    scaled = (logs - low) / np.maximum(high - low, 1e-12)
    half = 0.5 / (len(at) - 1)
    extent = (-half, 1 + half, len(shown) - 0.5, -0.5)
    image = heat.imshow(scaled.T, aspect="auto", cmap="cividis", extent=extent)
    heat.set_yticks(range(len(shown)), shown, fontsize="small")
    heat.set_xlabel("share of the path, from start to end")
    is_switch = adata.var.loc[shown, "is_switch"].to_numpy()
    switches = adata.var.loc[shown, "switch_at"].to_numpy()
    rows = np.arange(len(shown))
    heat.plot(switches[is_switch], rows[is_switch], "|", color="w", ms=8, mew=2)
    if is_switch.any():
        tick = "white tick: a switch gene has changed by half"
        heat.set_title(tick, fontsize="small", loc="left")
    label = "log expression\n(share of the gene's range)"
    bar = heat.figure.colorbar(image, ax=heat, shrink=0.6, label=label)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    return _style.finish(panels, show, save)


def _per_cell(some: AnnData, whole: AnnData) -> np.ndarray:
    # one total for all steps, because totals of proteins and peaks change along the path
    total = np.asarray(whole.X).sum(axis=1).mean()
    return 1e4 * np.asarray(some.X) / total


def _shown(adata: AnnData, genes: Sequence[str] | int) -> list[str]:
    if isinstance(genes, str):
        genes = [genes]
    if not isinstance(genes, (int, Integral)):
        for gene in genes:
            if gene not in adata.var_names:
                raise KeyError(
                    f"`adata` has no gene {gene!r}. {close_matches(gene, adata.var_names)}"
                )
        return list(genes)
    table = adata.var.assign(size=adata.var["log2_fold_change"].abs())
    # fold changes of rarely expressed genes are uncertain
    largest = np.asarray(adata.X).max(axis=0)
    table["size"] *= largest / (largest + 1)
    best = table.sort_values(["is_switch", "size"], ascending=False).index[:genes]
    return list(table.loc[best].sort_values(["direction", "switch_at"]).index)
