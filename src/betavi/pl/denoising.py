"""Plots of denoised counts, and of how well each gene is denoised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from scipy import sparse

from betavi._tables import close_matches
from betavi.pl._style import IN_LEGEND, USED, check_is, colours_of, finish, styled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

    from betavi.diagnostics import DenoisingReport

STYLES: dict[bool, dict[str, Any]] = {
    # they differ in filling, not in hue alone
    False: {"facecolor": "none", "edgecolor": "0.55", "label": "not shown to be better"},
    True: {"color": USED, "label": "surely better than its mean"},
}
MOST_CELLS = 3000
"""Points that an axis of two genes shows."""


@styled
def denoising(
    report: DenoisingReport,
    axes: Sequence[Axes] | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> np.ndarray:
    """Draw the methods and the genes that are better than each gene's mean.

    Parameters
    ----------
    report
        From :meth:`betavi.BetaVI.cross_validate_denoising`.
    axes, show, save
        Two axes (a new figure if None), show the figure, and a file to save it to.

    Returns
    -------
    The axes, ``(2,)``: the share of the deviance of held-out molecules that each method explains,
    and that of each gene, by the chosen method, against the gene's expression.

    Raises
    ------
    TypeError
        If it is a dictionary of reports, as :class:`betavi.JointVI` returns, or no report.

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
            f"There is a report for each modality; draw one: denoising(reports[{next(iter(report))!r}])."
        )
    check_is(report, "methods", "report is what model.cross_validate_denoising() returns")
    if axes is None:
        height = max(3.6, 1.2 + 0.3 * len(report.methods))
        _, axes = plt.subplots(1, 2, figsize=(9, height), layout="constrained")
    of_methods, of_genes = axes
    _draw_methods(of_methods, report)
    genes = report.genes[report.genes["mean"] > 0]
    for trusted, style in STYLES.items():
        some = genes[genes["trusted"] == trusted]
        of_genes.scatter(some["mean"], some["explained"], s=10, alpha=0.6, linewidth=0.6, **style)
    of_genes.axhline(0, color="k", lw=1)
    lowest = float(np.nanquantile(genes["explained"], 0.01)) if len(genes) else -1.0
    of_genes.set(
        xscale="log",
        xlabel="mean count",
        ylabel="share of deviance explained",
        ylim=(min(-0.1, lowest * 1.1), 1.02),
        title=f"{report.trusted_share:.0%} of genes to trust ({report.chosen})",
    )
    of_genes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=2)
    return finish(np.asarray(axes), show, save)


def _draw_methods(ax: Axes, report: DenoisingReport) -> None:
    table = report.methods[::-1]
    # the counts themselves may be far worse than the mean
    shown = table["explained"].clip(lower=-1)
    own = [name in report.ties or name == report.chosen for name in table.index]
    colours = [USED if mine else "#b5c4cf" for mine in own]
    ax.barh(np.arange(len(table)), shown, color=colours)
    for rank, (value, at) in enumerate(zip(table["explained"], shown, strict=True)):
        ax.annotate(
            f"{value:.3f}", (at, rank), (3 if value >= 0 else -3, 0), va="center",
            ha="left" if value >= 0 else "right", textcoords="offset points",
        )  # fmt: skip
    ax.set_yticks(np.arange(len(table)), table.index)
    ax.axvline(0, color="k", lw=1)
    ax.margins(x=0.22)
    ax.set(xlabel="share of the deviance of held-out molecules explained")


@styled
def before_and_after(
    adata: AnnData,
    genes: Sequence[str],
    layer: str | None = "denoised",
    counts_layer: str | None = None,
    groupby: str | None = None,
    axes: np.ndarray | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> np.ndarray:
    """Draw pairs of genes before and after denoising.

    Parameters
    ----------
    adata
        An object that was denoised.
    genes
        Two or more; each is drawn against the next.
    layer
        The denoised values: a layer, a data frame of that name in ``obsm``, or ``X`` if None.
    counts_layer
        The counts; ``X``, or where :meth:`betavi.BetaVI.denoise` has moved them, if None.
    groupby
        A column of ``obs`` to colour cells by, with scanpy's colours if there are any.
    axes, show, save
        Axes, ``(2, n_genes - 1)`` (a new figure if None), show the figure, and a file to save it
        to.

    Returns
    -------
    The axes, ``(2, n_genes - 1)``: counts above, denoised values below, log(1 + counts).

    Raises
    ------
    KeyError
        If there is no such gene, layer or column.
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
        raise ValueError(
            f"genes is a list of two or more, which are drawn in pairs, not {genes!r}."
        )
    if layer is not None and layer not in adata.layers and layer not in adata.obsm:
        raise KeyError(f"There is no layer {layer!r}: denoise(layer_added={layer!r}) makes it.")
    moved = adata.uns.get("betavi", {}).get("counts_moved_to")
    counts = counts_layer or (moved if moved in adata.layers else None)
    if axes is None:
        n = len(genes) - 1
        size = (3.2 * n + 1.4, 6.2)
        _, axes = plt.subplots(2, n, figsize=size, layout="constrained", squeeze=False)
    few = np.random.default_rng(0).permutation(adata.n_obs)[:MOST_CELLS]
    groups, colours = _groups(adata, groupby)
    for row, name, source in zip(axes, ("counts", "denoised"), (counts, layer), strict=True):
        values = {gene: np.log1p(_of_gene(adata, gene, source)[few]) for gene in genes}
        jitter = name == "counts"
        for ax, one, other in zip(row, genes[:-1], genes[1:], strict=True):
            _draw_pair(ax, values[one], values[other], groups[few], colours, jitter)
            ax.set(xlabel=f"{one}, log(1 + {name})", ylabel=f"{other},\nlog(1 + {name})")
    if groupby is not None:
        axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1), title=groupby)
    return finish(axes, show, save)


def _groups(adata: AnnData, groupby: str | None) -> tuple[np.ndarray, dict[Any, Any]]:
    """Return each cell's group, and the colour of each."""
    if groupby is None:
        return np.full(adata.n_obs, ""), colours_of([""])
    groups = adata.obs[groupby].astype("category")
    names = groups.cat.categories
    palette = adata.uns.get(f"{groupby}_colors", ())
    # categories may have come or gone since scanpy drew them
    colours = colours_of(list(names), palette if len(palette) == len(names) else None)
    present = set(groups.unique())
    return np.asarray(groups), {name: colours[name] for name in names if name in present}


def _draw_pair(
    ax: Axes,
    one: np.ndarray,
    other: np.ndarray,
    groups: np.ndarray,
    colours: dict[Any, Any],
    jitter: bool,
) -> None:
    rng = np.random.default_rng(0)
    if jitter:
        # counts are few and equal; without it a hundred cells are one point
        one, other = (values + rng.uniform(-0.08, 0.08, len(values)) for values in (one, other))
    for group, colour in colours.items():
        mine = groups == group
        style = {"color": colour, "linewidth": 0}
        ax.scatter(one[mine], other[mine], s=6, alpha=0.7, rasterized=True, **style)
        ax.scatter([], [], s=IN_LEGEND, label=str(group), **style)


def _of_gene(adata: AnnData, gene: str, layer: str | None) -> np.ndarray:
    if gene not in adata.var_names:
        raise KeyError(f"adata has no gene {gene!r}. {close_matches(gene, adata.var_names)}")
    if layer is not None and layer not in adata.layers:
        frame = adata.obsm[layer]
        if gene not in frame:
            raise KeyError(f"obsm[{layer!r}] has no gene {gene!r}. {close_matches(gene, frame)}")
        return frame[gene].to_numpy()
    matrix = adata.X if layer is None else adata.layers[layer]
    values = matrix[:, adata.var_names.get_loc(gene)]
    return (values.toarray() if sparse.issparse(values) else np.asarray(values)).ravel()
