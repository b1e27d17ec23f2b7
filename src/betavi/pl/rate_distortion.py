"""Plot of the rate-distortion curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm

from betavi.pl import _style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from betavi.pl._style import SavePath

LABELS = {
    "beta": "β",
    "rate": "rate (nats per cell)",
    "distortion": "distortion (nats per cell)",
    "elbo": "ELBO at β = 1 (nats per cell)",
    "active_dimensions": "number of active dimensions",
    "mutual_information": "mutual information (nats)",
    "agreement_common": "share of neighbours of the same type,\ncommon types",
    "agreement_rare": "share of neighbours of the same type,\nrare types",
    "LMS": "match of dimensions and types (LMS)",
    "MSAS": "information of the best dimension\nabout a type (MSAS)",
    "MSGS": "lead of the best dimension (MSGS)",
}
"""Axis labels by column."""

N_LABELLED = 5  # points that are labelled with their β


@_style.styled
def rate_distortion(
    curve: pd.DataFrame,
    y: str = "distortion",
    x: str = "rate",
    reference: pd.DataFrame | None = None,
    ax: Axes | None = None,
    show: bool = False,
    save: SavePath = None,
) -> Axes:
    """Draw the rate-distortion curve.

    Parameters
    ----------
    curve
        Result of :meth:`betavi.BetaVI.rate_distortion`.
    y, x
        Columns of the vertical and of the horizontal axis. ``y="agreement_rare", x="beta"`` shows
        if rare types mix at a high β.
    reference
        Points to compare with, the result of :func:`betavi.metrics.pca_rate_distortion`.
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
        If ``curve`` is not a table.
    KeyError
        If a column is missing.
    ValueError
        If a column has no values.

    Examples
    --------
    >>> import pandas as pd
    >>> import betavi
    >>> curve = pd.DataFrame({"beta": [0.5, 1, 2], "rate": [9, 5, 2], "distortion": [50, 51, 60]})
    >>> betavi.pl.rate_distortion(curve).get_xlabel()
    'rate (nats per cell)'
    """
    _style.check_result("curve", curve, "model.rate_distortion()")
    for name in (x, y, "beta"):
        if name not in curve:
            raise KeyError(f"`curve` has no column {name!r}. Columns: {', '.join(curve.columns)}.")
        if curve[name].isna().all():
            raise ValueError(
                f"The column {name!r} of `curve` has no values. Choose another column. The column "
                "'agreement_rare' needs cell types with less than 5 % of the cells."
            )
    ax = _style.axes_or_new(ax, (4.5, 3.5))
    curve = curve.sort_values("beta")
    ax.plot(curve[x], curve[y], color="0.7", zorder=1)
    # β = 0 has no place on a log scale
    norm = LogNorm() if curve["beta"].min() > 0 else None
    points = ax.scatter(curve[x], curve[y], c=curve["beta"], norm=norm, zorder=2)
    if "beta" not in (x, y) and len(curve) > 1:
        ax.figure.colorbar(points, ax=ax, label="β")
    labelled = np.unique(np.linspace(0, len(curve) - 1, N_LABELLED).round().astype(int))
    texts: list[tuple[Any, str, str | None]]
    texts = [(row, f"{row.beta:.2g}", None) for row in curve.iloc[labelled].itertuples()]
    if reference is not None:
        ax.scatter(
            reference[x], reference[y], marker="x", color=_style.VERMILION, label="PCA (components)"
        )
        texts += [(row, f"{row.n_components}", _style.VERMILION) for row in reference.itertuples()]
        ax.legend()
    for row, text, colour in texts:
        at = (getattr(row, x), getattr(row, y))
        ax.annotate(text, at, (4, 4), textcoords="offset points", fontsize=8, color=colour)
    if x == "beta":
        ax.set_xscale("log")
    ax.set(xlabel=LABELS.get(x, x), ylabel=LABELS.get(y, y))
    return _style.finish(ax, show, save)
