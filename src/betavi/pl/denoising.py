"""Plots of denoised counts, and of the quality of denoising for each gene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from betavi._tables import close_matches
from betavi.pl import _style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

    from betavi.diagnostics import DenoisingReport
    from betavi.pl._style import Panels, SavePath

STYLES: dict[bool, dict[str, Any]] = {
    # filled and open markers, so that colour is not needed
    False: {"facecolor": "none", "edgecolor": "0.55", "label": "not significantly better"},
    True: {"color": _style.USED, "label": "better than the gene mean"},
}
MOST_CELLS = 3000  # in a scatter plot of two genes


@_style.styled
def denoising(
    report: DenoisingReport, axes: Panels = None, show: bool = False, save: SavePath = None
) -> np.ndarray:
    """Draw the quality of denoising on held-out molecules, by method and by gene.

    Parameters
    ----------
    report
        Result of :meth:`betavi.BetaVI.cross_validate_denoising`.
    axes
        Two axes. If None, a new figure is made.
    show
        Show the figure.
    save
        File to save the figure to.

    Returns
    -------
    Axes, ``(2,)``. Left: share of the deviance of held-out molecules that each method explains.
    Right: the share that the chosen method explains of each gene, against the gene's mean count.

    Raises
    ------
    TypeError
        If ``report`` is not one report. :class:`betavi.JointVI` returns a dictionary with one
        report for each modality.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> report = model.cross_validate_denoising(max_epochs=1, show_progress=False)
    >>> betavi.pl.denoising(report)[1].get_xlabel()
    'mean count'
    """
    if isinstance(report, Mapping):
        raise TypeError(
            "`report` has one report for each modality. Pass the report of one modality: "
            f"reports[{next(iter(report))!r}]"
        )
    _style.check_result("report", report, "model.cross_validate_denoising()", "methods")
    height = max(3.6, 1.2 + 0.3 * len(report.methods))
    of_methods, of_genes = panels = _style.axes_or_new(axes, (9, height), 1, 2)
    _draw_methods(of_methods, report)
    genes = report.genes[report.genes["mean"] > 0]
    for trusted, style in STYLES.items():
        some = genes[genes["trusted"] == trusted]
        of_genes.scatter(some["mean"], some["explained"], s=10, alpha=0.6, linewidth=0.6, **style)
    of_genes.axhline(0, color="k", lw=1)
    lowest = float(np.nanquantile(genes["explained"], 0.01)) if len(genes) else -1.0
    of_genes.set(xlabel="mean count", xscale="log", ylim=(min(-0.1, lowest * 1.1), 1.02))
    of_genes.set_ylabel("share of deviance explained")
    of_genes.set_title(f"{report.chosen}: {report.trusted_share:.0%} of genes are trusted")
    of_genes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=2)
    return _style.finish(np.asarray(panels), show, save)


def _draw_methods(ax: Axes, report: DenoisingReport) -> None:
    table = report.methods[::-1]
    # raw counts may be far worse than the gene mean
    shown = table["explained"].clip(lower=-1)
    own = [name in report.ties or name == report.chosen for name in table.index]
    colours = [_style.USED if mine else "#b5c4cf" for mine in own]
    ax.barh(np.arange(len(table)), shown, color=colours)
    for rank, (value, at) in enumerate(zip(table["explained"], shown, strict=True)):
        ax.annotate(
            f"{value:.3f}", (at, rank), (3 if value >= 0 else -3, 0), va="center",
            ha="left" if value >= 0 else "right", textcoords="offset points",
        )  # fmt: skip
    ax.set_yticks(np.arange(len(table)), table.index)
    ax.axvline(0, color="k", lw=1)
    ax.margins(x=0.22)
    ax.set(xlabel="share of deviance explained, held-out molecules")


@_style.styled
def before_and_after(
    adata: AnnData,
    genes: Sequence[str],
    layer: str | None = "denoised",
    counts_layer: str | None = None,
    groupby: str | None = None,
    axes: np.ndarray | None = None,
    show: bool = False,
    save: SavePath = None,
) -> np.ndarray:
    """Draw pairs of genes before and after denoising.

    Parameters
    ----------
    adata
        Result of :meth:`betavi.BetaVI.denoise`.
    genes
        Two or more gene names. Each gene is drawn against the next.
    layer
        Denoised values: a layer, or a data frame in ``obsm``. If None, ``X``.
    counts_layer
        Layer of the counts. If None, ``X``, or the layer to which ``denoise`` moved the counts.
    groupby
        Column of ``obs`` that colours the cells. If ``uns`` has scanpy's colours of this column,
        these are used.
    axes
        Axes, ``(2, n_genes - 1)``. If None, a new figure is made.
    show
        Show the figure.
    save
        File to save the figure to.

    Returns
    -------
    Axes, ``(2, n_genes - 1)``. Top: counts. Bottom: denoised values. All as log(1 + counts).

    Raises
    ------
    KeyError
        If a gene, the layer or the column does not exist.
    ValueError
        If there are fewer than two genes.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> adata.layers["denoised"] = adata.X.toarray()
    >>> betavi.pl.before_and_after(adata, list(adata.var_names[:3])).shape
    (2, 2)
    """
    if isinstance(genes, str) or len(genes) < 2:
        raise ValueError(f"`genes` is {genes!r}. Pass a list of two or more names.")
    if layer is not None and layer not in adata.layers and layer not in adata.obsm:
        raise KeyError(f"`adata` has no layer {layer!r}. Run: denoise(layer_added={layer!r})")
    moved = adata.uns.get("betavi", {}).get("counts_moved_to")
    counts = counts_layer or (moved if moved in adata.layers else None)
    n = len(genes) - 1
    panels: np.ndarray = _style.axes_or_new(axes, (3.2 * n + 1.4, 6.2), 2, n, squeeze=False)
    few = np.random.default_rng(0).permutation(adata.n_obs)[:MOST_CELLS]
    groups = pd.Series("", adata.obs_names) if groupby is None else adata.obs[groupby]
    groups = groups.astype("category")
    palette = adata.uns.get(f"{groupby}_colors", ())
    # categories may have changed since scanpy assigned the colours
    has_all = len(palette) == len(groups.cat.categories)
    colours = _style.colours_of_groups(groups, palette if has_all else None)
    shown = np.asarray(groups)[few]
    # without jitter, cells with the same small counts are drawn as one point
    jitter = np.random.default_rng(0).uniform(-0.08, 0.08, (2, len(few))).T
    for row, name, source, noise in zip(
        panels, ("counts", "denoised"), (counts, layer), (jitter, 0), strict=True
    ):
        values = {gene: np.log1p(_of_gene(adata, gene, source)[few]) for gene in genes}
        for ax, one, other in zip(row, genes[:-1], genes[1:], strict=True):
            points = np.column_stack([values[one], values[other]]) + noise
            _style.scatter_groups(ax, points, shown, colours, s=6, rasterized=True)
            ax.set(xlabel=f"{one}, log(1 + {name})", ylabel=f"{other},\nlog(1 + {name})")
    if groupby is not None:
        panels[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1), title=groupby)
    return _style.finish(panels, show, save)


def _of_gene(adata: AnnData, gene: str, layer: str | None) -> np.ndarray:
    in_obsm = layer is not None and layer not in adata.layers
    names = adata.obsm[layer].columns if in_obsm else adata.var_names
    if gene not in names:
        where = f"adata.obsm[{layer!r}]" if in_obsm else "adata"
        raise KeyError(f"`{where}` has no gene {gene!r}. {close_matches(gene, names)}")
    values = adata.obsm[layer] if in_obsm else adata[:, gene].to_df(layer)
    return values[gene].to_numpy()
