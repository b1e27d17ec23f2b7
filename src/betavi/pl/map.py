"""The latent space as a map: cells, their density, holes, and paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from betavi.diagnostics import on_simplex
from betavi.pl._style import BLUE, IN_LEGEND, VERMILION, check_one_each, colours_of, finish, styled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

    from betavi.diagnostics import LatentDensity
    from betavi.pl._style import Palette

N_GRID, N_LEVELS = 120, 7
MARGIN = 0.1
OUTSIDE = 0.02
"""Share of the cells that the outermost contour leaves out."""

MOST_SHOWN = 5000
MOST_NUMBERS = 20
"""Different numbers that still are codes of groups; more are a scale."""

LINES = ("-", "--", ":")
MARKS: dict[str, tuple[Any, str, float]] = {
    "archetype": ("*", VERMILION, 220),
    "hole": ("X", "#ffffff", 70),
}
"""Marker, colour and size."""


@styled
def latent_map(
    density: LatentDensity,
    latent: np.ndarray,
    color: Sequence[Any] | pd.Series | None = None,
    path: AnnData | Sequence[AnnData] | None = None,
    holes: AnnData | None = None,
    archetype: AnnData | None = None,
    palette: Palette = None,
    ax: Axes | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Draw the density of cells in the plane of their first two principal components.

    Contours show the exact projection of the density, at equal steps in the number of cells; 98 %
    are within the dashed line. In more than two dimensions cells may hide a hole. Paths go from the
    round end to the square one.

    Parameters
    ----------
    density
        From :meth:`betavi.BetaVI.latent_density`.
    latent
        Positions of cells, ``(n_cells, n_latent)``.
    color
        A category or a number for each cell; one colour if None.
    path, holes, archetype
        From :meth:`betavi.BetaVI.interpolate`, one or several; :meth:`betavi.BetaVI.find_holes`;
        and :meth:`betavi.BetaVI.archetype`.
    palette
        Colours of categories, in their order, such as scanpy's ``adata.uns["celltype_colors"]``, or
        by name; or the name of a colour map. ``betavi.pl.PALETTE`` if None.
    ax, show, save
        Axes (a new figure if None), show the figure, and a file to save it to.

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError
        If it is no density.
    ValueError
        If positions have another number of dimensions than the density, are those after a softmax,
        or are not as many as colours; or if the palette lacks a category.

    Examples
    --------
    >>> import numpy as np
    >>> import betavi
    >>> from betavi.diagnostics import fit_density
    >>> latent = np.random.default_rng(0).normal(size=(300, 3))
    >>> betavi.pl.latent_map(fit_density(latent), latent).get_xlabel()
    'latent PC 1'
    """
    latent = _checked(density, latent)
    if color is not None:
        check_one_each("color", color, len(latent))
    ax = plt.subplots(figsize=(5.5, 4.5), layout="constrained")[1] if ax is None else ax
    centre, axes, shares = _plane(latent)
    flat = (latent - centre) @ axes
    _contours(ax, density.projected(centre, axes), flat)
    _cells(ax, flat, color, palette)
    several: list[Any] = [] if path is None else [path] if hasattr(path, "obsm") else list(path)
    for number, one in enumerate(several):
        label = f"path: {one.uns['betavi']['path']}"
        _path(ax, (one.obsm["z"] - centre) @ axes, ls=LINES[number % len(LINES)], label=label)
    points = {
        "archetype": None if archetype is None else archetype.obsm["z"][:1],
        "hole": None if holes is None else holes.obsm["z"],
    }
    for label, (marker, face, size) in MARKS.items():
        if (at := points[label]) is not None and len(at):
            x, y = ((at - centre) @ axes).T
            ax.scatter(x, y, size, face, marker=marker, edgecolors="k", zorder=4, label=label)
    ax.set(xlabel="latent PC 1", ylabel="latent PC 2", xticks=[], yticks=[])
    within = f"dashed: around {1 - OUTSIDE:.0%} of the cells"
    ax.set_title(f"{shares:.0%} of the variance of positions; {within}", fontsize="medium")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return finish(ax, show, save)


def _checked(density: Any, latent: Any) -> np.ndarray:
    """Return positions as an array with the dimensions of the density."""
    if not hasattr(density, "projected"):
        raise TypeError("density is what model.latent_density() returns, and latent positions.")
    positions = np.asarray(latent, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != density.n_latent:
        raise ValueError(
            f"Positions are (n_cells, {density.n_latent}) in this density, not {positions.shape}."
        )
    if on_simplex(positions):
        raise ValueError(
            "Positions of a logistic normal z are drawn before the softmax, where their density is: "
            "get_latent_representation(return_dist=True)[0]."
        )
    return positions


def _path(ax: Axes, flat: np.ndarray, **line: Any) -> None:
    """Draw a path from its round end to its square one."""
    x, y = flat.T
    ax.plot(x, y, color="k", lw=2, **line)
    ax.scatter(x[[0]], y[[0]], 40, "w", marker="o", edgecolors="k", zorder=4)
    ax.scatter(x[[-1]], y[[-1]], 40, "k", marker="s", edgecolors="w", zorder=4)


def _plane(latent: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the mean, the first two principal axes as columns, and their share of the variance."""
    centre = latent.mean(axis=0)
    _, sizes, rows = np.linalg.svd(latent - centre, full_matrices=False)
    axes = np.zeros((latent.shape[1], 2))
    axes[:, : min(2, len(rows))] = rows[:2].T
    squares = np.square(sizes)
    return centre, axes, float(squares[:2].sum() / max(squares.sum(), 1e-300))


def _contours(ax: Axes, density: LatentDensity, flat: np.ndarray) -> None:
    """Draw contours that enclose equal numbers of cells."""
    low, high = flat.min(axis=0), flat.max(axis=0)
    pad = MARGIN * (high - low) + 1e-9
    x, y = (np.linspace(a, b, N_GRID) for a, b in zip(low - pad, high + pad, strict=True))
    grid = np.column_stack([part.ravel() for part in np.meshgrid(x, y)])
    # a plane of one-dimensional positions has no density
    if np.linalg.matrix_rank(density.covariances).min() < 2:
        return
    logs = density.log_prob(grid).reshape(N_GRID, N_GRID)
    shares = np.linspace(OUTSIDE, 0.95, N_LEVELS)
    levels = np.unique(np.quantile(density.log_prob(flat), shares))
    filled = [*levels, max(logs.max(), levels[-1]) + 1]
    ax.contourf(x, y, logs, filled, cmap="Greys", alpha=0.5, zorder=0)
    ax.contour(x, y, logs, levels[:1], colors="0.3", linewidths=1, linestyles="--", zorder=1)


def _cells(ax: Axes, flat: np.ndarray, color: Any, palette: Palette) -> None:
    """Draw cells, at most 5,000, in random order."""
    some = np.random.default_rng(0).permutation(len(flat))[:MOST_SHOWN]
    style: dict[str, Any] = {"s": 5, "linewidths": 0, "alpha": 0.7, "zorder": 2}
    if color is None:
        x, y = flat[some].T
        ax.scatter(x, y, color=BLUE, **style)
        return
    # categories keep their order, as scanpy has it
    values = pd.Series(pd.Categorical(color) if hasattr(color, "cat") else np.asarray(color))
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > MOST_NUMBERS:
        x, y = flat[some].T
        points = ax.scatter(x, y, c=values.iloc[some], cmap="cividis", **style)
        label = getattr(color, "name", None) or ""
        ax.figure.colorbar(points, ax=ax, location="bottom", shrink=0.5, label=label)
        return
    groups = values.astype("category")
    present = set(groups.unique())
    # colours in a list are those of all categories, as scanpy keeps them
    names = [n for n in groups.cat.categories if n in present or not isinstance(palette, Mapping)]
    for name, colour in colours_of(names, palette).items():
        if name not in present:
            continue
        mine = some[(groups == name).to_numpy()[some]]
        ax.scatter(*flat[mine].T, color=colour, **style)
        ax.scatter([], [], color=colour, label=str(name), s=IN_LEGEND, linewidths=0)
