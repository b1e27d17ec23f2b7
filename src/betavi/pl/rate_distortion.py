"""The rate-distortion curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

from betavi.pl._style import VERMILION, check_is, finish, styled

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

NAMES = {
    "beta": "β",
    "rate": "rate, nats per cell",
    "distortion": "distortion, nats per cell",
    "elbo": "ELBO at β = 1, nats per cell",
    "active_dimensions": "active dimensions",
    "mutual_information": "mutual information, nats",
    "agreement_common": "neighbours of the same type, common types",
    "agreement_rare": "neighbours of the same type, rare types",
}
"""Labels of the axes, by column."""

N_NAMED = 5
"""Points of a curve that are labelled with their β."""


@styled
def rate_distortion(
    curve: pd.DataFrame,
    y: str = "distortion",
    x: str = "rate",
    reference: pd.DataFrame | None = None,
    ax: Axes | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Draw the rate-distortion curve.

    Parameters
    ----------
    curve
        From :meth:`betavi.BetaVI.rate_distortion`.
    y, x
        Columns; for instance ``y="agreement_rare", x="beta"`` shows what a high β blurs.
    reference
        Points to compare with, from :func:`betavi.metrics.pca_rate_distortion`.
    ax, show, save
        Axes (a new figure if None), show the figure, and a file to save it to.

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, KeyError, ValueError
        If it is no table, or a column is missing or has no values.

    Examples
    --------
    >>> import pandas as pd
    >>> import betavi
    >>> curve = pd.DataFrame({"beta": [0.5, 1, 2], "rate": [9, 5, 2], "distortion": [50, 51, 60]})
    >>> betavi.pl.rate_distortion(curve).get_xlabel()
    'rate, nats per cell'
    """
    check_is(curve, "columns", "curve is what model.rate_distortion() returns")
    for name in (x, y, "beta"):
        if name not in curve:
            raise KeyError(f"The curve has no column {name!r}. It has {', '.join(curve.columns)}.")
        if curve[name].isna().all():
            raise ValueError(
                f"{name!r} has no value at any β. Agreement of rare types needs types that make up "
                "less than 5 % of the cells."
            )
    ax = plt.subplots(figsize=(4.5, 3.5), layout="constrained")[1] if ax is None else ax
    curve = curve.sort_values("beta")
    ax.plot(curve[x], curve[y], color="0.7", zorder=1)
    # a model without any weight on the rate has no place on a log scale
    norm = LogNorm() if curve["beta"].min() > 0 else None
    points = ax.scatter(curve[x], curve[y], c=curve["beta"], norm=norm, zorder=2)
    if "beta" not in (x, y) and len(curve) > 1:
        ax.figure.colorbar(points, ax=ax, label="β")
    named = np.unique(np.linspace(0, len(curve) - 1, N_NAMED).round().astype(int))
    texts: list[tuple[Any, str, str | None]]
    texts = [(row, f"{row.beta:.2g}", None) for row in curve.iloc[named].itertuples()]
    if reference is not None:
        ax.scatter(reference[x], reference[y], marker="x", color=VERMILION, label="PCA, components")
        texts += [(row, f"{row.n_components}", VERMILION) for row in reference.itertuples()]
        ax.legend()
    for row, text, colour in texts:
        at = (getattr(row, x), getattr(row, y))
        ax.annotate(text, at, (4, 4), textcoords="offset points", fontsize=8, color=colour)
    if x == "beta":
        ax.set_xscale("log")
    ax.set(xlabel=NAMES.get(x, x), ylabel=NAMES.get(y, y))
    return finish(ax, show, save)
