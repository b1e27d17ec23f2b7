"""Variance and share of zeros of genes against their mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from betavi.pl._style import check_is, colours_of, finish, styled

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

COLUMNS = ("cells", "mean", "variance", "zeros")
STYLES, MARKERS = ("-", "--", "-.", ":"), "osD^vP"


@styled
def mean_curves(
    table: pd.DataFrame,
    axes: Any = None,
    show: bool = False,
    save: str | Path | None = None,
) -> np.ndarray:
    """Draw the variance and the share of zeros of genes over their mean, beside Poisson noise.

    Generated cells should follow the real ones. Poisson noise does not explain what is above the
    dashed line.

    Parameters
    ----------
    table
        From :func:`betavi.metrics.mean_curves`.
    axes, show, save
        Two axes (a new figure if None), show the figure, and a file to save it to.

    Returns
    -------
    The axes, ``(2,)``.

    Raises
    ------
    TypeError, KeyError, ValueError
        If it is no such table, or has no rows.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=100)
    >>> betavi.pl.mean_curves(betavi.metrics.mean_curves(adata)).shape
    (2,)
    """
    check_is(table, "columns", "table is what betavi.metrics.mean_curves() returns")
    if missing := [name for name in COLUMNS if name not in table]:
        raise KeyError(
            f"The table has no column {missing[0]!r}: it is not what mean_curves returns."
        )
    if table.empty:
        raise ValueError("The table is empty: there are less than five genes with counts.")
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
    axes = np.ravel(axes)
    colours = colours_of(list(table["cells"].unique()))
    for number, (name, rows) in enumerate(table.groupby("cells", sort=False)):
        style = {"color": colours[name], "ms": 3.5}
        style |= {"ls": STYLES[number % len(STYLES)], "marker": MARKERS[number % len(MARKERS)]}
        for ax, column in zip(axes, ("variance", "zeros"), strict=True):
            ax.plot(rows["mean"], rows[column], label=str(name), **style)
    means = np.geomspace(table["mean"].min(), table["mean"].max(), 100)
    for ax, noise in zip(axes, (means, np.exp(-means)), strict=True):
        ax.plot(means, noise, color="0.6", ls="--", lw=1, zorder=0, label="Poisson noise")
        ax.set(xscale="log", xlabel="mean count of a gene")
    axes[0].set(yscale="log", ylabel="variance of its counts")
    axes[1].set(ylim=(0, 1.02), ylabel="share of cells without a count of it")
    axes[0].legend()
    return finish(axes, show, save)
