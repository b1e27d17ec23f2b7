"""Plots of the information in each latent dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from betavi.diagnostics import ACTIVE
from betavi.pl import _style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from betavi.diagnostics import CollapseReport
    from betavi.pl._style import Panels, SavePath

STYLES: dict[str, dict[str, Any]] = {
    # lightness and hatching differ too, so that colour is not needed
    "used": {"facecolor": _style.USED},
    "noise": {"facecolor": _style.NOISE, "hatch": "///", "edgecolor": "white"},
    "depth": {"facecolor": _style.PALE, "hatch": "|||", "edgecolor": _style.NOISE},
    "unclear": {"facecolor": _style.PALE, "hatch": "...", "edgecolor": "white"},
    "inactive": {"facecolor": _style.GREY, "edgecolor": "0.4", "hatch": "xxx"},
}

SMALLEST = 1e-3  # lower end of the logarithmic axes, nats per cell


@_style.styled
def collapse(
    report: CollapseReport, axes: Panels = None, show: bool = False, save: SavePath = None
) -> np.ndarray:
    """Draw the information in each dimension, the loss without it, and the linear theory.

    Parameters
    ----------
    report
        Result of :meth:`betavi.BetaVI.diagnose`.
    axes
        Three axes. If None, a new figure is made.
    show
        Show the figure.
    save
        File to save the figure to.

    Returns
    -------
    Axes, ``(3,)``. Left: information of each dimension, highest first, with its KL divergence from
    the prior and the threshold of an active dimension. Middle: increase in loss without the
    dimension, nats per cell. Right: strength of the directions in the data. In theory, directions
    above β are active (Lucas et al., 2019).

    Raises
    ------
    TypeError
        If ``report`` is not a report.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> len(betavi.pl.collapse(model.diagnose(show_progress=False)))
    3
    """
    _style.check_result("report", report, "model.diagnose()", "dimensions")
    information, sensitivity, theory = panels = _style.axes_or_new(axes, (10, 3.2), 1, 3)
    table = report.dimensions.sort_values("information", ascending=False)
    _bars(information, table, "information")
    information.plot(np.arange(len(table)), table["kl"], "k_", ms=8, label="KL")
    information.axhline(ACTIVE, color="k", ls="--", lw=1)
    information.set(ylabel="information (nats per cell)", title=f"verdict: {report.verdict}")
    _bars(sensitivity, table, "sensitivity", "sensitivity_error")
    sensitivity.set(ylabel="increase in loss (nats per cell)", title="loss without the dimension")
    for ax in (information, sensitivity):
        ax.set_yscale("log")
        # leaves space for the legend above the bars
        ax.set_ylim(SMALLEST, 20 * max(ax.get_ylim()[1], 1))
        ax.set_xlabel("latent dimension")
    numbers = table["status"].value_counts()
    handles: list[Any] = [
        Patch(label=f"{status} ({numbers[status]})", **style)
        for status, style in STYLES.items()
        if status in numbers
    ]
    handles += information.get_lines()[:1] if table["kl"].notna().any() else []
    information.legend(handles=handles, loc="upper right", ncols=2)
    _draw_theory(theory, report)
    return _style.finish(np.asarray(panels), show, save)


def _bars(ax: Axes, table: pd.DataFrame, column: str, error: str | None = None) -> None:
    ranks = np.arange(len(table))
    heights = table[column].clip(lower=SMALLEST)
    for status, style in STYLES.items():
        mine = (table["status"] == status).to_numpy()
        ax.bar(ranks[mine], heights[mine], **style)
    if error is not None:
        ax.errorbar(ranks, heights, table[error], fmt="none", ecolor="k", elinewidth=0.8)
    shown = np.unique(np.linspace(0, len(table) - 1, min(len(table), 10)).round().astype(int))
    ax.set_xticks(shown, [str(table.index[rank]) for rank in shown])


def _draw_theory(ax: Axes, report: CollapseReport) -> None:
    strength = 1 + report.spectrum.signals
    ranks = np.arange(1, len(strength) + 1)
    is_active = ~(strength <= report.beta)
    ax.scatter(ranks[is_active], strength[is_active], color=_style.USED, label="active")
    ax.scatter(ranks[~is_active], strength[~is_active], marker="x", color="0.4", label="inactive")
    if not np.isnan(report.beta):
        ax.axhline(report.beta, color="k", ls="--", lw=1)
        text = ax.text(0.02, report.beta, f"β = {report.beta:.3g}", va="bottom")
        text.set_transform(ax.get_yaxis_transform())
    ax.margins(y=0.2)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.axvline(report.active_dimensions + 0.5, color="0.6", ls=":")
    ax.set_yscale("log")
    ax.set(xlabel="direction in the data", ylabel="variance / noise variance")
    ax.set_title(f"active in theory: {is_active.sum()}, used: {report.active_dimensions}")
    ax.legend(frameon=False, loc="best")


@_style.styled
def collapse_history(
    history: dict[str, pd.DataFrame],
    ax: Axes | None = None,
    show: bool = False,
    save: SavePath = None,
) -> Axes:
    """Draw mutual information, active dimensions and β during training.

    Parameters
    ----------
    history
        ``model.history`` of a model trained with ``collapse_guard``.
    ax
        Axes. If None, a new figure is made.
    show
        Show the figure.
    save
        File to save the figure to.

    Returns
    -------
    Axes. β is on a second vertical axis.

    Raises
    ------
    KeyError
        If the model was trained without ``collapse_guard``.

    Examples
    --------
    >>> import pandas as pd
    >>> import betavi
    >>> names = ("mutual_information", "active_dimensions", "beta")
    >>> history = {name: pd.DataFrame({name: [1.0, 2.0]}) for name in names}
    >>> betavi.pl.collapse_history(history).get_xlabel()
    'epoch'
    """
    if "active_dimensions" not in history:
        raise KeyError("`history` has no 'active_dimensions'. Train with collapse_guard=True.")
    left: Axes = _style.axes_or_new(ax, (5, 3.4))
    for name, style in (("mutual_information", "-"), ("active_dimensions", "--")):
        values = history[name].iloc[:, 0].astype(float)
        places = np.arange(1, len(values) + 1)
        left.plot(places, values, style, color="k", label=name.replace("_", " "))
    left.set(xlabel="epoch", ylabel="information (nats), number of dimensions")
    _style.add_beta(left, history["beta"].iloc[:, 0])
    return _style.finish(left, show, save)
