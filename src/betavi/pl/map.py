"""The latent space as a map: where cells are, where none can be, and ways between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from betavi._tables import close_matches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

    from betavi.diagnostics import LatentDensity

N_GRID, N_LEVELS = 120, 7
MARGIN = 0.1
MOST_GROUPS = 10
MOST_GENES = 40
MOST_SHOWN = 5000
LEVEL = 0.05


def latent_map(
    density: LatentDensity,
    latent: np.ndarray,
    color: Sequence[Any] | pd.Series | None = None,
    path: AnnData | Sequence[AnnData] | None = None,
    holes: AnnData | None = None,
    archetype: AnnData | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the density of cells in the plane of their first two principal components.

    The contours are of the exact projection of the density: each encloses as many cells more. In more
    than two dimensions a hole may lie behind cells.

    Parameters
    ----------
    density
        From :meth:`betavi.BetaVI.latent_density`.
    latent
        Positions of cells, ``(n_cells, n_latent)``.
    color
        A category of each, told apart by colour; grey points if None.
    path
        One or several from :meth:`betavi.BetaVI.interpolate`.
    holes
        From :meth:`betavi.BetaVI.find_holes`.
    archetype
        From :meth:`betavi.BetaVI.archetype`.
    ax
        To draw on; a new figure if None.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If positions are not of as many dimensions as the density, or not as many as colours.

    Examples
    --------
    >>> import numpy as np
    >>> import betavi
    >>> from betavi.diagnostics import fit_density
    >>> latent = np.random.default_rng(0).normal(size=(300, 3))
    >>> betavi.pl.latent_map(fit_density(latent), latent).get_xlabel()
    'latent PC 1'
    """
    latent = np.asarray(latent, dtype=np.float64)
    if latent.ndim != 2 or latent.shape[1] != density.n_latent:
        raise ValueError(
            f"Positions are (n_cells, {density.n_latent}) in this density, not {latent.shape}."
        )
    if color is not None and len(color) != len(latent):
        raise ValueError(f"There are {len(latent)} cells and {len(color)} colours.")
    ax = plt.subplots(figsize=(5.5, 4.5), layout="constrained")[1] if ax is None else ax
    centre, axes, shares = _plane(latent)
    flat = (latent - centre) @ axes
    _contours(ax, density.projected(centre, axes), flat)
    _cells(ax, flat, color)
    several: list[Any] = [] if path is None else [path] if hasattr(path, "obsm") else list(path)
    for number, one in enumerate(several):
        way = (one.obsm["z"] - centre) @ axes
        label = f"path: {one.uns['betavi']['path']}"
        ax.plot(*way.T, color="k", lw=2, ls=("-", "--", ":")[number % 3], label=label)
    marks: dict[str, tuple[AnnData | None, Any, str, float]] = {
        "archetype": (archetype, "*", "#d55e00", 220),
        "hole": (holes, "X", "#ffffff", 70),
    }
    for label, (adata, marker, face, size) in marks.items():
        if adata is not None and adata.n_obs:
            points = adata.obsm["z"][:1] if label == "archetype" else adata.obsm["z"]
            x, y = ((points - centre) @ axes).T
            ax.scatter(x, y, size, face, marker=marker, edgecolors="k", zorder=4, label=label)
    ax.set(xlabel="latent PC 1", ylabel="latent PC 2", xticks=[], yticks=[])
    ax.set_title(f"{shares:.0%} of the variance of positions", fontsize="medium")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


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
    levels = np.quantile(density.log_prob(flat), np.linspace(0.02, 0.95, N_LEVELS))
    levels = np.unique(levels)
    ax.contourf(x, y, logs, [*levels, logs.max() + 1], cmap="Greys", alpha=0.5, zorder=0)
    ax.contour(x, y, logs, levels[:1], colors="0.3", linewidths=1, linestyles="--", zorder=1)


def _cells(ax: Axes, flat: np.ndarray, color: Any) -> None:
    """Draw cells, at most some thousands, in another order than theirs."""
    some = np.random.default_rng(0).permutation(len(flat))[:MOST_SHOWN]
    style: dict[str, Any] = {"s": 5, "linewidths": 0, "alpha": 0.7, "zorder": 2}
    if color is None:
        x, y = flat[some].T
        ax.scatter(x, y, color="#0072b2", **style)
        return
    groups = pd.Series(np.asarray(color)).astype("category")
    palette = plt.get_cmap("tab10" if len(groups.cat.categories) <= MOST_GROUPS else "tab20")
    for number, name in enumerate(groups.cat.categories):
        mine = some[(groups == name).to_numpy()[some]]
        x, y = flat[mine].T
        ax.scatter(x, y, color=palette(number % palette.N), label=str(name), **style)


def latent_path(
    adata: AnnData, genes: Sequence[str] | int = 30, axes: Sequence[Axes] | None = None
) -> np.ndarray:
    """Draw what genes do along a path, and whether it stays where cells are.

    Parameters
    ----------
    adata
        From :meth:`betavi.BetaVI.interpolate`.
    genes
        Which ones, in this order; or how many of those that change most for what is uncertain,
        switches first, in the order in which they switch.
    axes
        Two, to draw on; a new figure if None.

    Returns
    -------
    The axes, ``(2,)``: the p-value of each step as a cell, with a line at 0.05; and the log expression
    of each gene, scaled to its own range, as a heat map.

    Raises
    ------
    KeyError
        If a gene is not in the object, or it is no path.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> path = model.interpolate(adata.obs_names[0], adata.obs_names[1])
    >>> len(betavi.pl.latent_path(path, ["gene_0", "gene_1"])[1].get_yticks())
    2
    """
    if "switch_at" not in adata.var or "step" not in adata.obs:
        raise KeyError("This is no path: it has no 'switch_at' in var. See interpolate().")
    shown = _shown(adata, genes)
    if axes is None:
        height = 2.2 + 0.17 * len(shown)
        figure = plt.figure(figsize=(6, height), layout="constrained")
        axes = figure.subplots(2, 1, height_ratios=[1.4, height - 1.4], sharex=True)
    support, heat = np.asarray(axes)
    at = adata.obs["step"].to_numpy()
    support.plot(at, adata.obs["p_value"], color="k", marker="o", ms=3, lw=1)
    support.axhline(LEVEL, color="#d55e00", ls="--", lw=1)
    support.set(ylabel="p-value", ylim=(-0.03, 1.03))
    logs = np.log1p(_per_cell(adata[:, shown], adata))
    low, high = logs.min(axis=0), logs.max(axis=0)
    scaled = (logs - low) / np.maximum(high - low, 1e-12)
    half = 0.5 / (len(at) - 1)
    extent = (-half, 1 + half, len(shown) - 0.5, -0.5)
    image = heat.imshow(scaled.T, aspect="auto", cmap="cividis", extent=extent)
    heat.set_yticks(range(len(shown)), shown, fontsize="small")
    heat.set_xlabel("share of the way")
    is_switch = adata.var.loc[shown, "is_switch"].to_numpy()
    switches = adata.var.loc[shown, "switch_at"].to_numpy()
    rows = np.arange(len(shown))
    heat.plot(switches[is_switch], rows[is_switch], "|", color="w", ms=8, mew=2)
    bar = heat.figure.colorbar(image, ax=heat, shrink=0.6, label="log expression, of its range")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    return np.asarray(axes)


def _per_cell(some: AnnData, whole: AnnData) -> np.ndarray:
    totals = np.asarray(whole.X).sum(axis=1, keepdims=True)
    scaled: np.ndarray = 1e4 * np.asarray(some.X) / totals
    return scaled


def _shown(adata: AnnData, genes: Sequence[str] | int) -> list[str]:
    """Return the genes to draw."""
    if not isinstance(genes, int):
        for gene in genes:
            if gene not in adata.var_names:
                raise KeyError(f"There is no gene {gene!r}. {close_matches(gene, adata.var_names)}")
        return list(genes)
    table = adata.var.assign(size=adata.var["log2_fold_change"].abs())
    # the fold change of a gene that is hardly there says little
    table["size"] *= np.asarray(adata.X).max(axis=0) / (np.asarray(adata.X).max(axis=0) + 1)
    best = table.sort_values(["is_switch", "size"], ascending=False).index[:genes]
    return list(table.loc[best].sort_values(["direction", "switch_at"]).index)


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
