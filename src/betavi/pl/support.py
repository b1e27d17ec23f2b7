"""Whether p-values of cells are what they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from betavi.pl.map import MOST_GROUPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


def support(
    table: pd.DataFrame, groups: Sequence[Any] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw which share of cells is called impossible at every level.

    Cells like those the model knows lie on the diagonal; above it, more are strange than should be.

    Parameters
    ----------
    table
        From :meth:`betavi.BetaVI.support`.
    groups
        A category of each row, a line for each; one for all if None.
    ax
        To draw on; a new figure if None.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If the table has no p-values.
    ValueError
        If there are not as many groups as rows.

    Examples
    --------
    >>> import pandas as pd
    >>> import betavi
    >>> table = pd.DataFrame({"p_value": [0.1, 0.5, 0.9]})
    >>> betavi.pl.support(table).get_ylabel()
    'share of cells with a p-value of at most this'
    """
    if "p_value" not in table:
        raise KeyError("The table has no column 'p_value': it is not what support() returns.")
    if groups is not None and len(groups) != len(table):
        raise ValueError(f"There are {len(table)} rows and {len(groups)} groups.")
    ax = plt.subplots(figsize=(4.5, 4), layout="constrained")[1] if ax is None else ax
    ax.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1, label="as it should be")
    names = pd.Series("cells" if groups is None else np.asarray(groups), index=table.index)
    palette = plt.get_cmap("tab10" if names.nunique() <= MOST_GROUPS else "tab20")
    styles = ("-", "--", "-.", ":")
    for number, (name, rows) in enumerate(table.groupby(names.astype(str))["p_value"]):
        share = np.arange(1, len(rows) + 1) / len(rows)
        style: dict[str, Any] = {"color": palette(number % palette.N)}
        style["ls"] = styles[number % len(styles)]
        ax.step(np.sort(rows), share, where="post", label=f"{name} ({len(rows)})", **style)
    ax.set(xlabel="p-value", ylabel="share of cells with a p-value of at most this")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.legend(frameon=False, fontsize="small")
    return ax
