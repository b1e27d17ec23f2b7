"""Plot of the calibration of p-values of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from betavi.pl import _style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from betavi.pl._style import SavePath


@_style.styled
def support(
    table: pd.DataFrame,
    groups: Sequence[Any] | None = None,
    ax: Axes | None = None,
    show: bool = False,
    save: SavePath = None,
) -> Axes:
    """Draw the cumulative distribution of p-values.

    Each line is a group of cells. Cells like the held-out cells follow the dashed diagonal. A line
    above the diagonal has more outlying cells than expected, and a line below the diagonal has
    fewer. Each cell is ranked among the held-out cells of all groups. A group with many outlying
    cells is therefore above the diagonal, and another group is below the diagonal, even if the
    model was trained on both groups.

    Parameters
    ----------
    table
        Result of :meth:`betavi.BetaVI.support`.
    groups
        Group of each row, ``(n_cells,)``. If None, all cells are one group.
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
        If ``table`` is not a table.
    KeyError
        If ``table`` has no p-values.
    ValueError
        If ``groups`` does not have one value per row.

    Examples
    --------
    >>> import pandas as pd
    >>> import betavi
    >>> table = pd.DataFrame({"p_value": [0.1, 0.5, 0.9]})
    >>> betavi.pl.support(table).get_ylabel()
    'share of cells with this p-value or lower'
    """
    _style.check_result("table", table, "model.support()", columns=["p_value"])
    if groups is not None:
        _style.check_one_each("groups", groups, len(table))
    ax = _style.axes_or_new(ax, (4.5, 4))
    ax.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1, label="calibrated")
    names = pd.Series("cells" if groups is None else np.asarray(groups), index=range(len(table)))
    styles = ("-", "--", "-.", ":")
    # cells without counts have no p-value
    lines = table["p_value"].reset_index(drop=True).dropna().groupby(names.astype(str))
    colours = _style.colours_of(list(lines.groups))
    for number, (name, rows) in enumerate(lines):
        share = np.arange(1, len(rows) + 1) / len(rows)
        style: dict[str, Any] = {"color": colours[name], "ls": styles[number % len(styles)]}
        ax.step(np.sort(rows), share, where="post", label=f"{name} ({len(rows)})", **style)
    ax.set(xlabel="p-value", ylabel="share of cells with this p-value or lower")
    ax.set(xlim=(-0.02, 1.02), ylim=(0, 1.02))
    ax.legend(title=None if groups is None else "ranked among cells of all groups")
    return _style.finish(ax, show, save)
