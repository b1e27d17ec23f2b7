"""Map of the latent space: cells, their density, holes and paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from betavi.diagnostics import on_simplex
from betavi.pl import _style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

    from betavi.diagnostics import LatentDensity
    from betavi.pl._style import Palette, SavePath

N_GRID, N_LEVELS = 120, 7
MARGIN = 0.1
OUTSIDE = 0.02  # share of the cells outside the outermost contour
MOST_SHOWN = 5000
MOST_CODES = 20  # largest number of distinct numbers drawn as groups; more are drawn as a scale
LINES = ("-", "--", ":")


@_style.styled
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
    save: SavePath = None,
) -> Axes:
    """Draw cells and their density in the plane of the first two principal components.

    Dots are cells, at most 5,000. Grey areas show the density, projected exactly to this plane. The
    same number of cells lies between each two neighbouring edges of grey areas. 98 % of the cells
    are inside the dashed line. A path is a black line from a circle to a square. A star is the
    archetype. White crosses are holes. With more than two dimensions, cells may be drawn on top of
    a hole.

    Parameters
    ----------
    density
        Result of :meth:`betavi.BetaVI.latent_density`.
    latent
        Positions of cells, ``(n_cells, n_latent)``.
    color
        Category or number of each cell, ``(n_cells,)``. If None, all cells have the same colour.
    path
        One result or several results of :meth:`betavi.BetaVI.interpolate`.
    holes
        Result of :meth:`betavi.BetaVI.find_holes`.
    archetype
        Result of :meth:`betavi.BetaVI.archetype`.
    palette
        List of colours, as ``adata.uns["celltype_colors"]``, dictionary of colours by category, or
        name of a colour map. If None, ``betavi.pl.PALETTE``.
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
        If ``density`` is not a density.
    ValueError
        If ``latent`` does not have the dimensions of ``density``, or holds positions after a
        softmax. If ``color`` does not have one value per cell, or ``palette`` has no colour for a
        category.

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
        _style.check_one_each("color", color, len(latent))
    ax = _style.axes_or_new(ax, (5.5, 4.5))
    centre, axes, shares = _plane(latent)
    flat = (latent - centre) @ axes
    _contours(ax, density.projected(centre, axes), flat)
    _cells(ax, flat, color, palette)
    several: list[Any] = [] if path is None else [path] if hasattr(path, "obsm") else list(path)
    for number, one in enumerate(several):
        label = f"path: {one.uns['betavi']['path']}"
        _path(ax, (one.obsm["z"] - centre) @ axes, ls=LINES[number % len(LINES)], label=label)
    style: dict[str, Any] = {"edgecolors": "k", "zorder": 4}
    if archetype is not None:
        x, y = ((archetype.obsm["z"][:1] - centre) @ axes).T
        ax.scatter(x, y, 220, _style.VERMILION, marker="*", label="archetype", **style)
    if holes is not None and holes.n_obs:
        x, y = ((holes.obsm["z"] - centre) @ axes).T
        ax.scatter(x, y, 70, "#ffffff", marker="X", label="hole", **style)
    ax.set(xlabel="latent PC 1", ylabel="latent PC 2", xticks=[], yticks=[])
    inside = f"dashed line: around {1 - OUTSIDE:.0%} of the cells"
    ax.set_title(f"{shares:.0%} of the variance of positions; {inside}", fontsize="medium")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return _style.finish(ax, show, save)


def _checked(density: Any, latent: Any) -> np.ndarray:
    """Check the density and the positions, and return the positions as an array."""
    _style.check_result("density", density, "model.latent_density()", "projected")
    positions = np.asarray(latent, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != density.n_latent:
        raise ValueError(
            f"`latent` has the shape {positions.shape}, but `density` was fitted on "
            f"{density.n_latent} dimensions, so the shape must be (n_cells, {density.n_latent}). "
            "Pass positions from the model that `density` was fitted on."
        )
    if on_simplex(positions):
        raise ValueError(
            "`latent` has positions after the softmax of a logistic normal z, but `density` needs "
            "positions before the softmax: get_latent_representation(return_dist=True)[0]"
        )
    return positions


def _path(ax: Axes, flat: np.ndarray, **line: Any) -> None:
    x, y = flat.T
    ax.plot(x, y, color="k", lw=2, **line)
    ax.scatter(x[[0]], y[[0]], 40, "w", marker="o", edgecolors="k", zorder=4)
    ax.scatter(x[[-1]], y[[-1]], 40, "k", marker="s", edgecolors="w", zorder=4)


def _plane(latent: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the mean, the first two principal axes as columns, and the axes' share of variance."""
    centre = latent.mean(axis=0)
    _, sizes, rows = np.linalg.svd(latent - centre, full_matrices=False)
    axes = np.zeros((latent.shape[1], 2))
    axes[:, : min(2, len(rows))] = rows[:2].T
    squares = np.square(sizes)
    return centre, axes, float(squares[:2].sum() / max(squares.sum(), 1e-300))


def _contours(ax: Axes, density: LatentDensity, flat: np.ndarray) -> None:
    low, high = flat.min(axis=0), flat.max(axis=0)
    pad = MARGIN * (high - low) + 1e-9
    x, y = (np.linspace(a, b, N_GRID) for a, b in zip(low - pad, high + pad, strict=True))
    grid = np.column_stack([part.ravel() for part in np.meshgrid(x, y)])
    # positions in one dimension have no density in a plane
    if np.linalg.matrix_rank(density.covariances).min() < 2:
        return
    logs = density.log_prob(grid).reshape(N_GRID, N_GRID)
    shares = np.linspace(OUTSIDE, 0.95, N_LEVELS)
    levels = np.unique(np.quantile(density.log_prob(flat), shares))
    filled = [*levels, max(logs.max(), levels[-1]) + 1]
    ax.contourf(x, y, logs, filled, cmap="Greys", alpha=0.5, zorder=0)
    ax.contour(x, y, logs, levels[:1], colors="0.3", linewidths=1, linestyles="--", zorder=1)


def _cells(ax: Axes, flat: np.ndarray, color: Any, palette: Palette) -> None:
    some = np.random.default_rng(0).permutation(len(flat))[:MOST_SHOWN]
    style: dict[str, Any] = {"s": 5, "linewidths": 0, "alpha": 0.7, "zorder": 2}
    if color is None:
        ax.scatter(flat[some, 0], flat[some, 1], color=_style.BLUE, **style)
        return
    # pd.Categorical keeps the order of categories, as scanpy does
    values = pd.Series(pd.Categorical(color) if hasattr(color, "cat") else np.asarray(color))
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > MOST_CODES:
        x, y = flat[some].T
        points = ax.scatter(x, y, c=values.iloc[some], cmap="cividis", **style)
        label = getattr(color, "name", None) or ""
        ax.figure.colorbar(points, ax=ax, location="bottom", shrink=0.5, label=label)
        return
    groups = values.astype("category")
    colours = _style.colours_of_groups(groups, palette)
    _style.scatter_groups(ax, flat[some], np.asarray(groups)[some], colours, s=5, zorder=2)
