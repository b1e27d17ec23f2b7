"""Shared style of all plots, palettes, checks of arguments, and saving."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

    # colours in the order of groups, colours by group name, or the name of a colour map
    Palette: TypeAlias = Sequence[Any] | Mapping[Any, Any] | str | None
    Panels: TypeAlias = Sequence[Axes] | np.ndarray | None
    SavePath: TypeAlias = str | Path | None

P = ParamSpec("P")
T = TypeVar("T")

PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000",
)  # fmt: skip
"""Colours that are distinct for all types of colour vision: Okabe & Ito (2008)."""

BLUE, VERMILION = PALETTE[0], PALETTE[5]
USED, NOISE, PALE, GREY = "#00517a", "#c7892b", "#8fb4c7", "#d9d9d9"
"""Colours of states, which also differ in lightness."""

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "legend.frameon": False,
    "legend.fontsize": 8,
    "image.cmap": "cividis",
}

IN_LEGEND = 25  # marker size in legends: the marker of a cell is too small to show its colour
DPI = 300  # dots per inch of saved files, as journals require


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw a plot in this style, and restore the user's style afterwards."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        # restore these only: a notebook changes other settings when it makes its first figure
        before = {name: plt.rcParams[name] for name in STYLE}
        plt.rcParams.update(STYLE)
        try:
            return draw(*args, **kwargs)
        finally:
            plt.rcParams.update(before)

    return drawn


def axes_or_new(
    axes: Any, size: tuple[float, float], n_rows: int = 1, n_columns: int = 1, **kwargs: Any
) -> Any:
    """Return the user's axes, or the axes of a new figure with this size in inches."""
    if axes is not None and np.size(axes) != n_rows * n_columns:
        raise ValueError(
            f"This plot needs {n_rows * n_columns} axes, but {np.size(axes)} were passed. Make them "
            f"with matplotlib.pyplot.subplots({n_rows}, {n_columns})."
        )
    kwargs |= {"figsize": size, "layout": "constrained"}
    return plt.subplots(n_rows, n_columns, **kwargs)[1] if axes is None else axes


def add_beta(left: Axes, beta: pd.Series) -> None:
    """Draw β by epoch on a second vertical axis, and a legend of all lines."""
    right = left.twinx()
    right.spines.right.set_visible(True)
    right.plot(np.arange(1, len(beta) + 1), beta.astype(float), ":", color=NOISE, label="β")
    right.set_ylabel("β")
    right.set_ylim(0, 1.1 * max(float(beta.max()), 1e-6))
    handles = [*left.get_lines(), *right.get_lines()]
    left.legend(handles, [str(line.get_label()) for line in handles], loc="center right")


def finish(axes: T, show: bool, save: SavePath) -> T:
    """Save and show the figure if requested, and return the axes."""
    if save is not None:
        np.ravel(np.asarray(axes, dtype=object))[0].figure.savefig(
            save, dpi=DPI, bbox_inches="tight"
        )
    if show:
        plt.show()
    return axes


def colours_of(names: Sequence[Any], palette: Palette = None) -> dict[Any, Any]:
    """Return a colour for each group. The default colours repeat beyond twenty groups."""
    if isinstance(palette, str):
        steps = plt.get_cmap(palette).resampled(max(len(names), 1))
        return {name: steps(i) for i, name in enumerate(names)}
    if palette is None:
        many = plt.get_cmap("tab20")
        own = len(names) <= len(PALETTE)
        return {name: PALETTE[i] if own else many(i % many.N) for i, name in enumerate(names)}
    if isinstance(palette, Mapping):
        if missing := [name for name in names if name not in palette]:
            raise ValueError(
                f"`palette` has no colour for {missing}, only for {list(palette)}. Add colours."
            )
        return {name: palette[name] for name in names}
    if len(palette) < len(names):
        raise ValueError(
            f"`palette` has {len(palette)} colours for {len(names)} groups. Add colours."
        )
    return dict(zip(names, palette, strict=False))


def colours_of_groups(groups: pd.Series, palette: Palette = None) -> dict[Any, Any]:
    """Return a colour for each category with cells. A list of colours has one for each category."""
    present = set(groups.unique())
    names = [n for n in groups.cat.categories if n in present or not isinstance(palette, Mapping)]
    return {n: colour for n, colour in colours_of(names, palette).items() if n in present}


def scatter_groups(
    ax: Axes, points: np.ndarray, groups: np.ndarray, colours: Mapping[Any, Any], **style: Any
) -> None:
    """Draw the points of each group, ``(n_cells, 2)``, and a larger point for the legend."""
    for name, colour in colours.items():
        x, y = points[groups == name].T
        ax.scatter(x, y, color=colour, linewidths=0, alpha=0.7, **style)
        ax.scatter([], [], color=colour, linewidths=0, s=IN_LEGEND, label=str(name))


def check_result(
    name: str, value: Any, call: str, attribute: str = "columns", columns: Sequence[str] = ()
) -> None:
    """Raise an error unless an argument can be the result of ``call``, with these columns."""
    if not hasattr(value, attribute):
        raise TypeError(f"`{name}` is of type {type(value).__name__}. Pass the result of {call}")
    if missing := [column for column in columns if column not in value]:
        raise KeyError(f"`{name}` has no column {missing[0]!r}. Pass the result of {call}")


def check_one_each(name: str, values: Any, n_cells: int) -> None:
    """Raise a ValueError unless an argument has one value per cell."""
    if isinstance(values, str):
        raise ValueError(f"`{name}` is {values!r}. Pass one value per cell: adata.obs[{values!r}]")
    if len(values) != n_cells:
        raise ValueError(
            f"`{name}` has {len(values)} values for {n_cells} cells. Pass one value per cell."
        )
