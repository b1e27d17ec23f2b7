"""Accuracy of a translation, and coverage of its intervals, by feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from betavi.pl._style import GREY, USED, check_is, finish, styled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

STYLES: dict[bool, dict[str, Any]] = {
    # they differ in lightness and hatching, not in hue alone
    True: {"facecolor": USED, "label": "predicted better than by its mean"},
    False: {
        "facecolor": GREY, "edgecolor": "0.4", "hatch": "xxx", "label": "not shown to be better",
    },
}  # fmt: skip

MOST_NAMED = 40
"""Features that fit on an axis with their names."""

NOMINAL = 0.9


@styled
def translation(
    table: pd.DataFrame,
    axes: Sequence[Axes] | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> np.ndarray:
    """Draw how well each feature is predicted, and the coverage of its interval.

    Parameters
    ----------
    table
        From :meth:`betavi.JointVI.predictability`.
    axes, show, save
        Two axes (a new figure if None), show the figure, and a file to save it to.

    Returns
    -------
    The axes, ``(2,)``: Pearson correlation of predicted and measured values, best first, and the
    share of the values in the 90 % interval, in the same order.

    Raises
    ------
    TypeError, KeyError
        If it is no table, or a column is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> import betavi
    >>> table = pd.DataFrame(
    ...     {"pearson": [0.9, 0.1], "coverage": [0.91, 0.88], "is_predictable": [True, False]},
    ...     index=["CD3", "IgG1"],
    ... )
    >>> [text.get_text() for text in betavi.pl.translation(table)[0].get_yticklabels()]
    ['CD3', 'IgG1']
    """
    check_is(table, "columns", "table is what model.predictability() returns")
    if missing := {"pearson", "coverage", "is_predictable"}.difference(table):
        raise KeyError(
            f"The table has no column {min(missing)!r}: it is not what predictability() returns."
        )
    table = table.sort_values("pearson", ascending=False)
    if axes is None:
        height = 1.2 + 0.22 * min(len(table), MOST_NAMED)
        _, axes = plt.subplots(1, 2, figsize=(9, height), layout="constrained", sharey=True)
    quality, coverage = axes
    ranks = np.arange(len(table))
    for is_predictable, style in STYLES.items():
        mine = (table["is_predictable"] == is_predictable).to_numpy()
        if mine.any():
            quality.barh(ranks[mine], table["pearson"][mine], **style)
    quality.set(xlabel="Pearson correlation, held-out cells", xlim=(min(0, *quality.get_xlim()), 1))
    quality.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    coverage.plot(table["coverage"], ranks, "o", color="k", ms=4)
    coverage.axvline(NOMINAL, color="0.4", ls="--", lw=1)
    coverage.set(xlabel=f"share of cells within the {NOMINAL:.0%} interval", xlim=(0, 1))
    for ax in (quality, coverage):
        _name(ax, table.index)
    return finish(np.asarray(axes), show, save)


def _name(ax: Axes, names: pd.Index) -> None:
    """Name the features, or count them if they are many; the best is on top."""
    if len(names) <= MOST_NAMED:
        ax.set_yticks(np.arange(len(names)), names)
    else:
        ax.set_ylabel("feature, best first")
    ax.set_ylim(len(names) - 0.5, -0.5)
