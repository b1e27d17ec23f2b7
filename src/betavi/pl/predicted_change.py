"""Plot of predicted against measured changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from betavi._tables import close_matches
from betavi.pl import _style
from betavi.pl._predictions import LAYERS, apart, check_prediction, row_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

    from betavi.pl._style import SavePath

Z = 1.645  # standard errors of a 90 % interval


@_style.styled
def predicted_change(
    predicted: AnnData,
    observed: AnnData | pd.Series | np.ndarray,
    condition: str | None = None,
    n_labelled: int = 8,
    max_error: float = 0.5,
    ax: Axes | None = None,
    show: bool = False,
    save: SavePath = None,
) -> Axes:
    """Draw predicted against measured log2 fold changes of all genes.

    Each point is a gene, and its vertical line is the prediction interval. Points on the diagonal
    are predicted exactly. Blue points agree with the measurement within the 90 % intervals of both.
    Orange squares differ.

    Parameters
    ----------
    predicted
        Result of :meth:`betavi.EffectVI.predict`.
    observed
        Measured log2 fold changes: result of :func:`betavi.metrics.measured_changes`, or one value
        per gene, ``(n_genes,)``. Genes without a value are not drawn. Only the former has standard
        errors. Otherwise, the noise of measured values is ignored.
    condition
        Row of ``predicted`` to draw, needed if it has several.
    n_labelled
        Number of genes that are labelled, those with the largest predicted or measured changes.
    max_error
        Largest standard error of the measured log2 fold change. Other genes have too few counts and
        are not drawn.
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
        If ``predicted`` is not a result of ``predict``.
    KeyError
        If ``condition`` is unknown, or was not measured.
    ValueError
        If ``predicted`` has several rows and ``condition`` is None, or sizes differ.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_perturbations(n_cells=400, n_perturbations=3)
    >>> betavi.EffectVI.setup_anndata(adata, perturbation_key="perturbation")
    >>> model = betavi.EffectVI(adata)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> measured = betavi.metrics.measured_changes(adata, "perturbation")
    >>> betavi.pl.predicted_change(model.predict("P0"), measured).get_ylabel()
    'predicted log2 fold change'
    """
    check_prediction("predicted", predicted)
    name = row_of(predicted, condition, "predicted")
    row = predicted[name]
    mean, lower, upper = (np.asarray(row.layers[layer]).ravel() for layer in LAYERS)
    truth, error = _measured(observed, name, predicted)
    known = np.isfinite(truth) & (error <= max_error)
    if not known.any():
        raise ValueError(f"No gene has a standard error of at most `max_error`, {max_error:g}.")
    below, above = (np.hypot(width, Z * error) for width in (mean - lower, upper - mean))
    outside = known & ((truth < mean - below) | (truth > mean + above))
    ax = _style.axes_or_new(ax, (4.8, 4.4))
    ends = np.concatenate([truth[known], mean[known], [-0.1, 0.1]])
    limits = np.array([ends.min(), ends.max()]) + np.array([-0.08, 0.08]) * np.ptp(ends)
    ax.plot(limits, limits, color="0.5", ls="--", lw=1, zorder=1)
    for line in (ax.axhline, ax.axvline):
        line(0, color="0.85", lw=0.8, zorder=0)
    groups = {
        "agree within the intervals": (known & ~outside, _style.BLUE, "o"),
        "differ": (outside, _style.VERMILION, "s"),
    }
    for word, (mask, colour, marker) in groups.items():
        label = f"genes that {word}: {mask.sum()}"
        ax.vlines(truth[mask], lower[mask], upper[mask], color=colour, alpha=0.25, lw=1)
        ax.plot(truth[mask], mean[mask], marker, color=colour, ms=4, mew=0, label=label)
    size = np.where(known, np.maximum(np.abs(truth), np.abs(mean)), -1.0)
    chosen = np.argsort(-size)[: min(n_labelled, int(known.sum()))]
    _spread_labels(ax, truth[chosen], mean[chosen], predicted.var_names[chosen], limits)
    ax.set(xlim=limits, ylim=limits, title=name, aspect="equal")
    ax.set(xlabel="measured log2 fold change", ylabel="predicted log2 fold change")
    if n_hidden := int((np.isfinite(truth) & ~known).sum()):
        ax.plot([], [], " ", label=f"not shown, with few counts: {n_hidden}")
    ax.legend(loc="best", handletextpad=0.2, borderaxespad=0.1)
    return _style.finish(ax, show, save)


def _measured(observed: Any, name: str, predicted: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return measured log2 fold changes of the predicted genes, NaN if not measured, and errors."""
    if hasattr(observed, "layers"):
        if "lfc" not in observed.layers:
            raise TypeError(
                "`observed` has no layer 'lfc'. Pass the result of betavi.metrics.measured_changes()"
            )
        if name not in observed.obs_names:
            raise KeyError(
                f"`observed` has no row {name!r}. {close_matches(name, observed.obs_names)}"
            )
        layers = [np.ravel(observed[name].layers[key]) for key in ("lfc", "lfc_error")]
        table = pd.DataFrame(np.transpose(layers), observed.var_names, dtype=float)
        lfc, error = table.reindex(predicted.var_names).to_numpy().T
        return lfc, np.where(np.isnan(error), np.inf, error)
    if isinstance(observed, pd.Series):
        observed = observed.reindex(predicted.var_names)
    values = np.asarray(observed, dtype=float).ravel()
    if len(values) != predicted.n_vars:
        raise ValueError(
            f"`observed` has {len(values)} values for {predicted.n_vars} genes. Pass one value per gene."
        )
    return values, np.zeros(len(values))


def _spread_labels(
    ax: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], limits: np.ndarray
) -> None:
    """Label points, on the side away from the diagonal, with labels of one side apart."""
    span = float(np.ptp(limits))
    left, right = limits + np.array([0.25, -0.15]) * span
    is_left = (y > x) & (x > left) | (x > right)
    for side, sign, ha in ((is_left, -1, "right"), (~is_left, 1, "left")):
        heights = apart(y[side], 0.045 * span)
        for at_x, at_y, height, name in zip(
            x[side], y[side], heights, np.asarray(names)[side], strict=True
        ):
            ax.annotate(
                str(name), (at_x, at_y), (at_x + sign * 0.04 * span, height), ha=ha, va="center",
                fontsize=8, arrowprops={"arrowstyle": "-", "color": "0.5", "lw": 0.5},
            )  # fmt: skip
