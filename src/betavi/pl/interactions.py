"""Heat map of interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

from betavi._tables import close_matches
from betavi.pl import _style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from betavi.pl._style import SavePath

DIVERGING = LinearSegmentedColormap.from_list(
    "effects", [_style.USED, _style.PALE, "white", "#f0b48a", "#a34000"]
)
"""Colours of decreases and increases. White means no change."""

MINUS = "\N{MINUS SIGN}"


@_style.styled
def interactions(
    table: pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame],
    genes: Sequence[str] | None = None,
    n_genes: int = 25,
    fdr: float = 0.1,
    ax: Axes | None = None,
    show: bool = False,
    save: SavePath = None,
) -> Axes:
    """Draw a heat map of the interactions of genes and measured pairs.

    Colours are shrunken interactions: the log2 fold change of the pair minus the sum of both effects.
    A sign marks the interactions below the false discovery rate: plus for a higher expression
    than the sum, minus for a lower one. The signs can also be read without colours.

    Parameters
    ----------
    table
        Result of :meth:`betavi.EffectVI.interactions`, both tables or the first one.
    genes
        Genes to draw, in this order. If None, the most significant genes.
    n_genes
        Number of genes if ``genes`` is None.
    fdr
        False discovery rate of the marked interactions.
    ax
        Axes. If None, a new figure is made.
    show
        Show the figure.
    save
        File to save the figure to.

    Returns
    -------
    Axes.

    Raises
    ------
    TypeError
        If ``table`` is not a result of ``interactions``.
    KeyError
        If a column or gene is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> import betavi
    >>> table = pd.DataFrame({"pair": "A+B", "gene": ["g1", "g2"], "shrunken": [0.8, -0.1]})
    >>> ax = betavi.pl.interactions(table.assign(fdr=[0.01, 0.9]))
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['g1', 'g2']
    """
    table = table[0] if isinstance(table, tuple) else table
    columns = ["pair", "gene", "shrunken", "fdr"]
    _style.check_result("table", table, "model.interactions()", columns=columns)
    values, rates = (
        table.pivot_table(index="gene", columns="pair", values=column, sort=False, dropna=False)
        for column in ("shrunken", "fdr")
    )
    names = _significant(values, rates, n_genes) if genes is None else pd.Index(genes)
    for gene in names.difference(values.index):
        raise KeyError(f"`table` has no gene {gene!r}. {close_matches(gene, values.index)}")
    shown, marks = values.loc[names], rates.loc[names]
    size = (2.2 + 0.45 * shown.shape[1], 1.4 + 0.17 * len(shown))
    ax = _style.axes_or_new(ax, size)
    limit = max(float(np.nanmax(np.abs(shown.to_numpy()))), 1e-3)
    norm = TwoSlopeNorm(0, -limit, limit)
    image = ax.imshow(shown, cmap=DIVERGING, norm=norm, aspect="auto", interpolation="nearest")
    for i, j in np.argwhere((marks < fdr).to_numpy()):
        value = shown.iloc[i, j]
        colour = "white" if abs(value) > 0.6 * limit else "black"
        style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": colour}
        ax.text(j, i, "+" if value > 0 else MINUS, fontweight="bold", **style)
    ax.set_xticks(
        range(shown.shape[1]), shown.columns, rotation=45, ha="right", rotation_mode="anchor"
    )
    ax.set_yticks(range(len(shown)), shown.index, fontsize=8)
    ax.tick_params(length=0)
    ax.set_title(f"+ / {MINUS}: FDR below {fdr:g}", loc="left", fontsize=9)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.6, aspect=15)
    bar.set_label("interaction: log2 fold change of the\npair minus the sum of both effects")
    return _style.finish(ax, show, save)


def _significant(values: pd.DataFrame, rates: pd.DataFrame, n_genes: int) -> pd.Index:
    """Return the genes with the smallest false discovery rates, sorted by their largest interaction."""
    order = pd.DataFrame({"fdr": rates.min(axis=1), "size": -values.abs().max(axis=1)})
    names = order.sort_values(["fdr", "size"]).index[:n_genes]
    # genes of the same pair and sign stand together
    largest = values.loc[names].to_numpy()
    lead = np.abs(largest).argmax(axis=1)
    return names[np.lexsort((-largest[np.arange(len(names)), lead], lead))]
