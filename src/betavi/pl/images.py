"""Plot of images beside their reconstructions, and of their power by frequency band."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import NullLocator

from betavi._tables import check_whole
from betavi.metrics._images import read_images
from betavi.metrics.image_power import power_ratio
from betavi.pl import _style

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from betavi.pl._style import SavePath

LOW, HIGH = 0.005, 0.995
"""Quantiles of the true image that are drawn white and black."""

GOOD = 0.8, 1.25
"""Range of the ratio of two powers that is shaded."""

LOWEST_RATIO, HIGHEST_RATIO = 0.01, 10.0
LABELS = {"ratio": "with noise (draws)", "signal_ratio": "of the signal (means)"}


@_style.styled
def images(
    sets: Mapping[str, ArrayLike],
    indices: Sequence[int] | None = None,
    n_images: int = 3,
    channel: int = 0,
    noise_sd: ArrayLike | None = None,
    cmap: str = "gray_r",
    axes: np.ndarray | None = None,
    show: bool = False,
    save: SavePath = None,
) -> np.ndarray:
    """Draw images beside their reconstructions, with the power of each frequency band below.

    The first set is the truth. Each row has one grey scale, that of the true image. Bright pixels
    are dark, to save ink and to keep faint lines visible in print.

    Parameters
    ----------
    sets
        Arrays ``(n_images, n_channels, height, width)`` by name, with the truth first. Other sets
        are reconstructions of the same images, means or draws.
    indices
        Numbers of the images to draw. By default, images with low, medium and high variance.
    n_images
        Number of images to draw, if ``indices`` is None.
    channel
        Channel to draw.
    noise_sd
        Standard deviation of the noise in the truth, see :func:`betavi.metrics.power_ratio`.
    cmap
        Name of matplotlib's colour map.
    axes
        Axes, ``(n_images + 1, n_sets)``. If None, a new figure is made.
    show
        Show the figure.
    save
        File to save the figure to.

    Returns
    -------
    Axes, ``(n_images + 1, n_sets)``: one row for each image, and one for the power of all images in
    the sets. The first column has the power of the truth and of its noise. The other columns have
    the power divided by that of the truth, for means (points, noise subtracted from the truth, only
    bands with signal) and for draws (squares). A ratio between 0.8 and 1.25 is shaded.

    Raises
    ------
    TypeError
        If ``sets`` is not a dictionary.
    ValueError
        If ``sets`` has fewer than two sets, or sets of different shapes.
    IndexError
        If an image or a channel does not exist.

    Examples
    --------
    >>> import betavi
    >>> from scipy.ndimage import gaussian_filter
    >>> truth = betavi.datasets.simulate_filaments(n_cells=20, n_genes=0)["image"].obsm["image"]
    >>> blurred = gaussian_filter(truth, (0, 0, 2, 2))
    >>> betavi.pl.images({"truth": truth, "blurred": blurred}).shape
    (4, 2)
    """
    arrays = _checked(sets, channel)
    truth = next(iter(arrays.values()))
    check_whole("n_images", n_images)
    if indices is None:
        # evenly spaced from the smallest to the largest variance, without either
        order = np.argsort(truth.var(axis=(1, 2)), kind="stable")
        ranks = (np.arange(n_images) + 0.5) / n_images * len(order)
        indices = [int(i) for i in order[ranks.astype(int)]]
    if any(not 0 <= i < len(truth) for i in indices):
        raise IndexError(f"`indices` must be between 0 and {len(truth) - 1}, not {list(indices)}.")
    shape = len(indices) + 1, len(arrays)
    size = 1.9 * shape[1] + 0.9, 1.85 * shape[0] + 0.5
    panels: np.ndarray = _style.axes_or_new(axes, size, *shape, squeeze=False)
    panels = np.asarray(panels, dtype=object).reshape(shape)
    for row, i in zip(panels[:-1], indices, strict=True):
        limits = dict(zip(("vmin", "vmax"), np.quantile(truth[i], [LOW, HIGH]), strict=True))
        for ax, values in zip(row, arrays.values(), strict=True):
            ax.imshow(values[i], cmap=cmap, **limits)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(f"image {i}")
    for ax, name in zip(panels[0], arrays, strict=True):
        ax.set_title(name)
    if noise_sd is not None and np.ndim(noise_sd) == 4:
        noise_sd = np.asarray(noise_sd)[:, [min(channel, np.shape(noise_sd)[1] - 1)]]
    tables = [power_ratio(truth[:, None], values[:, None], noise_sd) for values in arrays.values()]
    _draw_power(panels[-1, 0], tables[0])
    for ax, table in zip(panels[-1, 1:], tables[1:], strict=True):
        _draw_ratio(ax, table)
        ax.tick_params(labelleft=bool(ax is panels[-1, 1]))
    if shape[1] > 1:
        panels[-1, 1].set_ylabel("power / truth")
        panels[-1, -1].legend(loc="lower left", fontsize=6.5, handletextpad=0.3)
    return _style.finish(panels, show, save)


def _checked(sets: Mapping[str, ArrayLike], channel: int) -> dict[str, np.ndarray]:
    """Return the channel of each set, ``(n_images, height, width)``, or raise an error."""
    if not isinstance(sets, Mapping):
        raise TypeError(
            f"`sets` is of type {type(sets).__name__}. Pass a dictionary of arrays by name, with the "
            "truth first: {'truth': adata.obsm['image'], 'mean': reconstruction}"
        )
    arrays = {name: read_images(f"sets[{name!r}]", values) for name, values in sets.items()}
    shapes = {name: values.shape for name, values in arrays.items()}
    if len(shapes) < 2 or len(set(shapes.values())) > 1:
        raise ValueError(
            f"`sets` must have the truth and at least one other set of the same shape, not {shapes}."
        )
    n_channels = next(iter(shapes.values()))[1]
    if not 0 <= channel < n_channels:
        raise IndexError(f"`channel` must be between 0 and {n_channels - 1}, not {channel}.")
    return {name: values[:, channel].astype(float) for name, values in arrays.items()}


def _draw_power(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the power of the truth and its noise."""
    ax.plot(_ranks(table), table["truth"], "o-", color=_style.USED, ms=4, label="truth")
    ax.plot(_ranks(table), table["noise"], "--", color="0.4", label="noise")
    ax.set(yscale="log", ylabel="power")
    ax.legend(fontsize=6.5)
    _label_bands(ax, table)


def _draw_ratio(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the power of a reconstruction relative to the truth, with and without noise."""
    ax.axhspan(*GOOD, color="0.9", lw=0, zorder=0)
    ax.axhline(1, color="0.4", lw=0.8, zorder=0)
    # larger open squares stay visible behind circles
    styles: dict[str, dict[str, Any]] = {
        "ratio": {"marker": "s", "ls": ":", "ms": 7, "mfc": "none", "color": _style.NOISE},
        "signal_ratio": {"marker": "o", "ls": "-", "ms": 3.5, "color": _style.USED},
    }
    for column, style in styles.items():
        shown = table[column].clip(LOWEST_RATIO, HIGHEST_RATIO)
        ax.plot(_ranks(table), shown, label=LABELS[column], clip_on=False, **style)
    ax.set(yscale="log", ylim=(LOWEST_RATIO, HIGHEST_RATIO))
    ax.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    _label_bands(ax, table)


def _ranks(table: pd.DataFrame) -> np.ndarray:
    return np.arange(len(table))


def _label_bands(ax: Axes, table: pd.DataFrame) -> None:
    """Name each band by its periods in pixels."""
    periods = [f"{1 / high:.0f}" for high in table["high"][:-1]]
    between = [f"{low}-{high}" for high, low in itertools.pairwise(periods)]
    names = [f">{periods[0]}", *between, f"<{periods[-1]}"]
    ax.set_xticks(_ranks(table), names, fontsize=7)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlabel="period, pixels", box_aspect=1)
