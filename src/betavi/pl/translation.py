"""Plot of the accuracy of a translation, and of the coverage of its intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from betavi.pl import _style

if TYPE_CHECKING:
    import pandas as pd

    from betavi.pl._style import Panels, SavePath

COLUMNS = ("pearson", "coverage", "is_predictable")
STYLES: dict[bool, dict[str, Any]] = {
    # lightness and hatching differ too, so that colour is not needed
    True: {"facecolor": _style.USED, "label": "better than the feature's mean"},
    False: {
        "facecolor": _style.GREY, "edgecolor": "0.4", "hatch": "xxx", "label": "not significantly better",
    },
}  # fmt: skip

MOST_NAMED = 40  # largest number of features for which names fit on the axis
NOMINAL = 0.9


@_style.styled
def translation(
    table: pd.DataFrame, axes: Panels = None, show: bool = False, save: SavePath = None
) -> np.ndarray:
    """Draw the accuracy of the prediction of each feature, and the coverage of its interval.

    Parameters
    ----------
    table
        Result of :meth:`betavi.JointVI.predictability`.
    axes
        Two axes. If None, a new figure is made.
    show
        Show the figure.
    save
        File to save the figure to.

    Returns
    -------
    Axes, ``(2,)``. Left: Pearson correlation of predicted and measured values, best on top. Right:
    share of measured values within the 90 % interval, in the same order.

    Raises
    ------
    TypeError
        If ``table`` is not a table.
    KeyError
        If a column is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> import betavi
    >>> table = pd.DataFrame({"pearson": [0.9], "coverage": [0.91], "is_predictable": [True]})
    >>> betavi.pl.translation(table)[1].get_xlabel()
    'share of values in the 90% interval'
    """
    _style.check_result("table", table, "model.predictability()", columns=COLUMNS)
    table = table.sort_values("pearson", ascending=False)
    height = 1.2 + 0.22 * min(len(table), MOST_NAMED)
    quality, coverage = panels = _style.axes_or_new(axes, (9, height), 1, 2, sharey=True)
    ranks = np.arange(len(table))
    for is_predictable, style in STYLES.items():
        mine = (table["is_predictable"] == is_predictable).to_numpy()
        if mine.any():
            quality.barh(ranks[mine], table["pearson"][mine], **style)
    quality.set(xlabel="Pearson correlation (held-out cells)")
    quality.set_xlim(min(0, *quality.get_xlim()), 1)
    quality.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    coverage.plot(table["coverage"], ranks, "o", color="k", ms=4)
    coverage.axvline(NOMINAL, color="0.4", ls="--", lw=1)
    coverage.set(xlabel=f"share of values in the {NOMINAL:.0%} interval", xlim=(0, 1))
    for ax in (quality, coverage):
        if len(table) <= MOST_NAMED:
            ax.set_yticks(ranks, table.index)
        else:
            ax.set_ylabel("features, best on top")
        ax.set_ylim(len(table) - 0.5, -0.5)
    return _style.finish(np.asarray(panels), show, save)
