"""Calibration of the p-values of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from betavi.pl._style import check_is, check_one_each, colours_of, finish, styled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes


@styled
def support(
    table: pd.DataFrame,
    groups: Sequence[Any] | None = None,
    ax: Axes | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Draw the share of cells with a p-value below each level.

    Cells like the held-out ones lie on the diagonal; above it, more cells are outlying than
    expected. Cells are ranked among cells of all kinds. So a kind with more outlying cells than
    others is above the diagonal, and another one below it, even where the model knows both.

    Parameters
    ----------
    table
        From :meth:`betavi.BetaVI.support`.
    groups
        A category of each row, with a line for each; one line if None.
    ax, show, save
        Axes (a new figure if None), show the figure, and a file to save it to.

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, KeyError
        If it is no table, or has no p-values.
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
    check_is(table, "columns", "table is what model.support() returns")
    if "p_value" not in table:
        raise KeyError("The table has no column 'p_value': it is not what support() returns.")
    if groups is not None:
        check_one_each("groups", groups, len(table))
    ax = plt.subplots(figsize=(4.5, 4), layout="constrained")[1] if ax is None else ax
    ax.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1, label="as it should be")
    names = pd.Series("cells" if groups is None else np.asarray(groups), index=range(len(table)))
    styles = ("-", "--", "-.", ":")
    # cells without counts have no p-value
    lines = table["p_value"].reset_index(drop=True).dropna().groupby(names.astype(str))
    colours = colours_of(list(lines.groups))
    for number, (name, rows) in enumerate(lines):
        share = np.arange(1, len(rows) + 1) / len(rows)
        style: dict[str, Any] = {"color": colours[name], "ls": styles[number % len(styles)]}
        ax.step(np.sort(rows), share, where="post", label=f"{name} ({len(rows)})", **style)
    ax.set(xlabel="p-value", ylabel="share of cells with a p-value of at most this")
    ax.set(xlim=(-0.02, 1.02), ylim=(0, 1.02))
    ax.legend(title=None if groups is None else "ranked among cells of all kinds")
    return finish(ax, show, save)
