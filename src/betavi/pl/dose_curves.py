"""Plot of log fold changes against the dose."""

from __future__ import annotations

from collections.abc import Mapping
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

LINES, MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P")


@_style.styled
def dose_curves(
    predictions: Mapping[float, AnnData],
    genes: Sequence[str] | None = None,
    condition: str | None = None,
    observed: AnnData | None = None,
    response: pd.DataFrame | None = None,
    n_genes: int = 4,
    ax: Axes | None = None,
    show: bool = False,
    save: SavePath = None,
) -> Axes:
    """Draw log2 fold changes of genes against the dose, with intervals.

    Lines are predictions, and bands their intervals. Points are measured values, with two standard
    errors. Points of different genes are moved apart along the axis of doses. The vertical line is
    the half-effective dose (EC50), and the grey area is its interval.

    Parameters
    ----------
    predictions
        Results of :meth:`betavi.EffectVI.predict`, by dose: ``{dose: model.predict("A", dose=dose)
        for dose in doses}``.
    genes
        Genes to draw. If None, those with the largest changes that are certain: the end of the
        interval that is closer to zero is farthest from it.
    condition
        Row of the predictions to draw, needed if they have several.
    observed
        Measured values, the result of :func:`betavi.metrics.measured_changes` with ``dose_key``.
    response
        Half-effective doses, the result of :meth:`betavi.EffectVI.dose_response`.
    n_genes
        Number of genes if ``genes`` is None.
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
        If ``predictions`` is not a dictionary of results by dose.
    KeyError
        If a gene or condition is unknown.
    ValueError
        If there are fewer than two doses, or several rows and ``condition`` is None.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_perturbations(
    ...     n_cells=400, n_perturbations=2, doses=(0.1, 1, 10)
    ... )
    >>> betavi.EffectVI.setup_anndata(adata, perturbation_key="perturbation", dose_key="dose")
    >>> model = betavi.EffectVI(adata)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> curves = {dose: model.predict("P0", dose=dose) for dose in (0.1, 1, 10)}
    >>> betavi.pl.dose_curves(curves, response=model.dose_response()).get_xscale()
    'log'
    """
    if not isinstance(predictions, Mapping):
        raise TypeError(
            f"`predictions` is of type {type(predictions).__name__}. Pass a dictionary with predictions "
            "by dose: {dose: model.predict(..., dose=dose) for dose in doses}"
        )
    doses = np.sort(np.array(list(predictions), dtype=float))
    if len(doses) < 2:
        raise ValueError(f"`predictions` has {len(doses)} dose. Predict at two doses at least.")
    for one in predictions.values():
        check_prediction("predictions", one)
    rows = [predictions[dose] for dose in sorted(predictions)]
    name = row_of(rows[0], condition, "predictions")
    mean, lower, upper = (
        pd.DataFrame([np.ravel(one[name].layers[layer]) for one in rows], doses, rows[0].var_names)
        for layer in LAYERS
    )
    if genes is None:
        certain = np.maximum(lower, -upper).max()
        genes = certain.nlargest(n_genes).index
    for gene in pd.Index(genes).difference(mean.columns):
        raise KeyError(f"`predictions` have no gene {gene!r}. {close_matches(gene, mean.columns)}")
    ax = _style.axes_or_new(ax, (5.4, 3.6))
    ax.set_xscale("log")
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    colours = _style.colours_of(list(genes))
    _draw_curves(ax, mean, lower, upper, colours)
    drawn = [lower[list(genes)].min().min(), upper[list(genes)].max().max(), 0.0]
    if observed is not None:
        drawn += _draw_measured(ax, observed, name, rows[0], colours)
    # error bars of noisy points may leave the picture
    ax.set_ylim(min(drawn) - 0.08 * np.ptp(drawn), max(drawn) + 0.08 * np.ptp(drawn))
    if response is not None:
        _draw_ec50(ax, response, str(rows[0].obs.loc[name, "perturbation"]))
    _label_ends(ax, mean, colours)
    ax.set(xlabel="dose", ylabel="log2 fold change", title=name)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=4, columnspacing=1)
    return _style.finish(ax, show, save)


def _draw_curves(
    ax: Axes,
    mean: pd.DataFrame,
    lower: pd.DataFrame,
    upper: pd.DataFrame,
    colours: Mapping[Any, Any],
) -> None:
    """Draw curves of genes, ``colours``, and their intervals. Tables are doses × genes."""
    for number, (gene, colour) in enumerate(colours.items()):
        line = LINES[number % len(LINES)]
        ax.fill_between(mean.index, lower[gene], upper[gene], color=colour, alpha=0.15, lw=0)
        ax.plot(mean.index, mean[gene], line, color=colour)
    ax.plot([], [], color="0.3", label="predicted")
    ax.fill_between([], [], [], color="0.3", alpha=0.15, lw=0, label="interval")


def _label_ends(ax: Axes, mean: pd.DataFrame, colours: Mapping[Any, Any]) -> None:
    """Write the names of genes, ``colours``, at the ends of their curves."""
    ends = mean.iloc[-1][list(colours)]
    places = apart(ends.to_numpy(), 0.055 * np.ptp(ax.get_ylim()))
    for (gene, colour), place in zip(colours.items(), places, strict=True):
        ax.annotate(
            str(gene), (mean.index[-1], ends[gene]), (1.02, place), color=colour, va="center",
            xycoords="data", textcoords=ax.get_yaxis_transform(), fontweight="bold", fontsize=8,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5},
        )  # fmt: skip


def _draw_measured(
    ax: Axes, observed: AnnData, name: str, predicted: AnnData, colours: Mapping[Any, Any]
) -> list[float]:
    """Draw measured values of genes, ``colours``, at their doses, and return the values."""
    _style.check_result("observed", observed, "betavi.metrics.measured_changes()", "layers")
    if "dose" not in observed.obs:
        raise KeyError(
            "`observed` has no doses. Pass `dose_key` to betavi.metrics.measured_changes."
        )
    wanted = predicted.obs.loc[name]
    mask = np.ones(observed.n_obs, dtype=bool)
    for column in ("perturbation", "context"):
        if column in predicted.obs and column in observed.obs:
            mask &= (observed.obs[column].astype(str) == str(wanted[column])).to_numpy()
    if not mask.any():
        raise KeyError(
            f"`observed` has no row of {name!r}. {close_matches(name, observed.obs_names)}"
        )
    rows, drawn = observed[mask], []
    shifts = np.exp(0.08 * (np.arange(len(colours)) - (len(colours) - 1) / 2))
    for number, (gene, colour) in enumerate(colours.items()):
        if gene in rows.var_names:
            values, errors = (np.ravel(rows[:, gene].layers[key]) for key in ("lfc", "lfc_error"))
            marker = MARKERS[number % len(MARKERS)]
            ax.errorbar(
                pd.to_numeric(rows.obs["dose"], errors="coerce") * shifts[number], values, 2 * errors, color=colour,
                marker=marker, ms=5, ls="none", elinewidth=0.8,
            )  # fmt: skip
            drawn += values.tolist()
    ax.plot([], [], "o", color="0.3", ms=5, label="measured")
    return drawn


def _draw_ec50(ax: Axes, response: pd.DataFrame, name: str) -> None:
    """Mark the half-effective dose and its interval."""
    columns = ["ec50", "lower", "upper"]
    _style.check_result("response", response, "model.dose_response()", columns=columns)
    if name not in response.index:
        raise KeyError(f"`response` has no row {name!r}. {close_matches(name, response.index)}")
    ec50, lower, upper = (float(response[column][name]) for column in columns)
    left, right = ax.get_xlim()
    ax.axvspan(lower, upper, color="0.92", lw=0, zorder=-1)
    label = f"EC50 {ec50:.2g} ({lower:.2g} to {upper:.2g})"
    ax.axvline(ec50, color="0.3", lw=1.5, zorder=0, label=label)
    ax.set_xlim(left, right)
