"""Plot of the variance and the share of zeros of genes against their mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi.pl import _style

if TYPE_CHECKING:
    import pandas as pd

    from betavi.pl._style import Panels, SavePath

COLUMNS = ("cells", "mean", "variance", "zeros")
STYLES, MARKERS = ("-", "--", "-.", ":"), "osD^vP"


@_style.styled
def mean_curves(
    table: pd.DataFrame, axes: Panels = None, show: bool = False, save: SavePath = None
) -> np.ndarray:
    """Draw the variance and the share of zeros of genes against their mean count.

    Each line is a set of cells. The line of generated cells should follow the line of real cells.
    The dashed line is Poisson noise. Values above the dashed line have more variance, or more
    zeros, than Poisson noise alone.

    Parameters
    ----------
    table
        Result of :func:`betavi.metrics.mean_curves`.
    axes
        Two axes. If None, a new figure is made.
    show
        Show the figure.
    save
        File to save the figure to.

    Returns
    -------
    Axes, ``(2,)``. Left: variance. Right: share of cells without a count.

    Raises
    ------
    TypeError
        If ``table`` is not a table.
    KeyError
        If a column is missing.
    ValueError
        If ``table`` has no rows.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=100)
    >>> betavi.pl.mean_curves(betavi.metrics.mean_curves(adata)).shape
    (2,)
    """
    _style.check_result("table", table, "betavi.metrics.mean_curves()", columns=COLUMNS)
    if table.empty:
        raise ValueError(
            "`table` is empty, because fewer than 5 genes have counts. Use more genes."
        )
    axes = np.ravel(_style.axes_or_new(axes, (8, 3.8), 1, 2))
    colours = _style.colours_of(list(table["cells"].unique()))
    for number, (name, rows) in enumerate(table.groupby("cells", sort=False)):
        style = {"color": colours[name], "ms": 3.5}
        style |= {"ls": STYLES[number % len(STYLES)], "marker": MARKERS[number % len(MARKERS)]}
        for ax, column in zip(axes, ("variance", "zeros"), strict=True):
            ax.plot(rows["mean"], rows[column], label=str(name), **style)
    means = np.geomspace(table["mean"].min(), table["mean"].max(), 100)
    for ax, noise in zip(axes, (means, np.exp(-means)), strict=True):
        ax.plot(means, noise, color="0.6", ls="--", lw=1, zorder=0, label="Poisson noise")
        ax.set(xscale="log", xlabel="mean count of a gene")
    axes[0].set(yscale="log", ylabel="variance of the counts of a gene")
    axes[1].set(ylim=(0, 1.02), ylabel="share of cells without a count of the gene")
    axes[0].legend()
    return _style.finish(axes, show, save)
