"""Plots of perturbation effects: predictions beside measurements, interactions, dose curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

from betavi._tables import close_matches
from betavi.pl import _style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

    from betavi.pl._style import SavePath

LAYERS = ("lfc", "lfc_lower", "lfc_upper")
DIVERGING = LinearSegmentedColormap.from_list(
    "effects", [_style.USED, _style.PALE, "white", "#f0b48a", "#a34000"]
)
"""Colours of decreases and increases. White means no change."""

MINUS = "\N{MINUS SIGN}"
Z = 1.645  # standard errors of a 90 % interval
LINES, MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P")


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
    _check_prediction("predicted", predicted)
    name = _row(predicted, condition, "predicted", "condition")
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


@_style.styled
def interactions(
    table: pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame],
    genes: Sequence[str] | None = None,
    n_genes: int = 25,
    fdr: float = 0.1,
    ax: Axes | None = None,
    show: bool = False,
    save: SavePath = None,
) -> Axes:
    """Draw a heat map of the interactions of genes and measured pairs.

    Colours are shrunken interactions: the log2 fold change of the pair minus the sum of both effects.
    A sign marks the interactions below the false discovery rate: plus for a higher expression
    than the sum, minus for a lower one. The signs can also be read without colours.

    Parameters
    ----------
    table
        Result of :meth:`betavi.EffectVI.interactions`, both tables or the first one.
    genes
        Genes to draw, in this order. If None, the most significant genes.
    n_genes
        Number of genes if ``genes`` is None.
    fdr
        False discovery rate of the marked interactions.
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
        If ``table`` is not a result of ``interactions``.
    KeyError
        If a column or gene is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> import betavi
    >>> table = pd.DataFrame({"pair": "A+B", "gene": ["g1", "g2"], "shrunken": [0.8, -0.1]})
    >>> ax = betavi.pl.interactions(table.assign(fdr=[0.01, 0.9]))
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['g1', 'g2']
    """
    table = table[0] if isinstance(table, tuple) else table
    columns = ["pair", "gene", "shrunken", "fdr"]
    _style.check_result("table", table, "model.interactions()", columns=columns)
    values, rates = (
        table.pivot_table(index="gene", columns="pair", values=column, sort=False, dropna=False)
        for column in ("shrunken", "fdr")
    )
    if genes is None:
        order = pd.DataFrame({"fdr": rates.min(axis=1), "size": -values.abs().max(axis=1)})
        names = order.sort_values(["fdr", "size"]).index[:n_genes]
        # genes of the same pair and sign stand together
        lead = values.loc[names].abs().to_numpy().argmax(axis=1)
        peak = values.loc[names].to_numpy()[np.arange(len(names)), lead]
        names = names[np.lexsort((-peak, lead))]
    else:
        names = pd.Index(genes)
        for gene in names.difference(values.index):
            raise KeyError(f"`table` has no gene {gene!r}. {close_matches(gene, values.index)}")
    shown, marks = values.loc[names], rates.loc[names]
    size = (2.2 + 0.45 * shown.shape[1], 1.4 + 0.17 * len(shown))
    ax = _style.axes_or_new(ax, size)
    limit = max(float(np.nanmax(np.abs(shown.to_numpy()))), 1e-3)
    norm = TwoSlopeNorm(0, -limit, limit)
    image = ax.imshow(shown, cmap=DIVERGING, norm=norm, aspect="auto", interpolation="nearest")
    for i, j in np.argwhere((marks < fdr).to_numpy()):
        value = shown.iloc[i, j]
        colour = "white" if abs(value) > 0.6 * limit else "black"
        style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": colour}
        ax.text(j, i, "+" if value > 0 else MINUS, fontweight="bold", **style)
    ax.set_xticks(
        range(shown.shape[1]), shown.columns, rotation=45, ha="right", rotation_mode="anchor"
    )
    ax.set_yticks(range(len(shown)), shown.index, fontsize=8)
    ax.tick_params(length=0)
    ax.set_title(f"+ / {MINUS}: FDR below {fdr:g}", loc="left", fontsize=9)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.6, aspect=15)
    bar.set_label("interaction: log2 fold change of the\npair minus the sum of both effects")
    return _style.finish(ax, show, save)


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
        _check_prediction("predictions", one)
    rows = [predictions[dose] for dose in sorted(predictions)]
    name = _row(rows[0], condition, "predictions", "condition")
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
    for number, gene in enumerate(genes):
        colour, line = colours[gene], LINES[number % len(LINES)]
        ax.fill_between(doses, lower[gene], upper[gene], color=colour, alpha=0.15, lw=0)
        ax.plot(doses, mean[gene], line, color=colour)
    ax.plot([], [], color="0.3", label="predicted")
    ax.fill_between([], [], [], color="0.3", alpha=0.15, lw=0, label="interval")
    drawn = [lower[list(genes)].min().min(), upper[list(genes)].max().max(), 0.0]
    if observed is not None:
        drawn += _draw_measured(ax, observed, name, rows[0], colours)
    # error bars of noisy points may leave the picture
    ax.set_ylim(min(drawn) - 0.08 * np.ptp(drawn), max(drawn) + 0.08 * np.ptp(drawn))
    if response is not None:
        _draw_ec50(ax, response, str(rows[0].obs.loc[name, "perturbation"]))
    ends = mean.iloc[-1][list(genes)]
    places = _apart(ends.to_numpy(), 0.055 * np.ptp(ax.get_ylim()))
    for gene, place in zip(genes, places, strict=True):
        ax.annotate(
            str(gene), (doses[-1], ends[gene]), (1.02, place), color=colours[gene], va="center",
            xycoords="data", textcoords=ax.get_yaxis_transform(), fontweight="bold", fontsize=8,
            arrowprops={"arrowstyle": "-", "color": colours[gene], "lw": 0.5},
        )  # fmt: skip
    ax.set(xlabel="dose", ylabel="log2 fold change", title=name)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=4, columnspacing=1)
    return _style.finish(ax, show, save)


def _check_prediction(name: str, value: Any) -> None:
    call = "model.predict()"
    _style.check_result(name, value, call, "layers")
    if missing := [layer for layer in LAYERS if layer not in value.layers]:
        raise TypeError(
            f"`{name}` has no layer {missing[0]!r}. Pass the result of {call} without `cells`"
        )


def _row(predicted: AnnData, condition: str | None, name: str, argument: str) -> str:
    """Return the name of the row to draw."""
    if condition is None:
        if predicted.n_obs > 1:
            raise ValueError(
                f"`{name}` has {predicted.n_obs} rows. Choose one with `{argument}`. "
                f"{close_matches('', predicted.obs_names)}"
            )
        return str(predicted.obs_names[0])
    if condition not in predicted.obs_names:
        raise KeyError(
            f"`{name}` has no row {condition!r}. {close_matches(condition, predicted.obs_names)}"
        )
    return condition


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
                rows.obs["dose"].astype(float) * shifts[number], values, 2 * errors, color=colour,
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


def _apart(places: np.ndarray, gap: float) -> np.ndarray:
    """Return places that are at least a gap apart, close to the given places."""
    order = np.argsort(places)
    moved = places[order].astype(float)
    for _ in range(50):
        lacking = np.maximum(gap - np.diff(moved), 0) / 2
        if not lacking.any():
            break
        moved[:-1] -= lacking
        moved[1:] += lacking
    found = np.empty_like(moved)
    found[order] = moved
    return found


def _spread_labels(
    ax: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], limits: np.ndarray
) -> None:
    """Label points, on the side away from the diagonal, with labels of one side apart."""
    span = float(np.ptp(limits))
    left, right = limits + np.array([0.25, -0.15]) * span
    is_left = (y > x) & (x > left) | (x > right)
    for side, sign, ha in ((is_left, -1, "right"), (~is_left, 1, "left")):
        heights = _apart(y[side], 0.045 * span)
        for at_x, at_y, height, name in zip(
            x[side], y[side], heights, np.asarray(names)[side], strict=True
        ):
            ax.annotate(
                str(name), (at_x, at_y), (at_x + sign * 0.04 * span, height), ha=ha, va="center",
                fontsize=8, arrowprops={"arrowstyle": "-", "color": "0.5", "lw": 0.5},
            )  # fmt: skip
