"""Plots of the information in each latent dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from betavi.diagnostics import ACTIVE
from betavi.pl._style import GREY, NOISE, PALE, USED, check_is, finish, styled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

    from betavi.diagnostics import CollapseReport

STYLES: dict[str, dict[str, Any]] = {
    # they differ in lightness and hatching, not in hue alone
    "used": {"facecolor": USED},
    "noise": {"facecolor": NOISE, "hatch": "///", "edgecolor": "white"},
    "unclear": {"facecolor": PALE, "hatch": "...", "edgecolor": "white"},
    "dead": {"facecolor": GREY, "edgecolor": "0.4", "hatch": "xxx"},
}

SMALLEST = 1e-3
"""Nats below which bars are not drawn, on a log scale."""


@styled
def collapse(
    report: CollapseReport,
    axes: Sequence[Axes] | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> np.ndarray:
    """Draw the information in each dimension, the loss without it, and the linear theory.

    Parameters
    ----------
    report
        From :meth:`betavi.BetaVI.diagnose`.
    axes, show, save
        Three axes (a new figure if None), show the figure, and a file to save it to.

    Returns
    -------
    The axes, ``(3,)``: the information of each dimension, most first, its KL from the prior and
    the threshold of collapse; the nats per cell lost without it; and the strength of the
    directions in the data. Those above β are active in theory (Lucas et al., 2019).

    Raises
    ------
    TypeError
        If it is no report.

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
    check_is(report, "dimensions", "report is what model.diagnose() returns")
    if axes is None:
        _, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    information, sensitivity, theory = axes
    table = report.dimensions.sort_values("information", ascending=False)
    _bars(information, table, "information")
    information.plot(np.arange(len(table)), table["kl"], "k_", ms=8, label="KL")
    information.axhline(ACTIVE, color="k", ls="--", lw=1)
    information.set(ylabel="information, nats per cell", title=report.verdict)
    _bars(sensitivity, table, "sensitivity", "sensitivity_error")
    sensitivity.set(ylabel="loss without it, nats per cell", title="what the decoder misses")
    for ax in (information, sensitivity):
        ax.set_yscale("log")
        # room for the legend above the bars
        ax.set_ylim(SMALLEST, 20 * max(ax.get_ylim()[1], 1))
        ax.set_xlabel("latent dimension")
    numbers = table["status"].value_counts()
    patches = [
        Patch(label=f"{status} ({numbers[status]})", **style)
        for status, style in STYLES.items()
        if status in numbers
    ]
    lines = information.get_lines()[:1] if table["kl"].notna().any() else []
    information.legend(handles=[*patches, *lines], loc="upper right", ncols=2)
    _draw_theory(theory, report)
    return finish(np.asarray(axes), show, save)


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
    alive = ~(strength <= report.beta)
    ax.scatter(ranks[alive], strength[alive], color=STYLES["used"]["facecolor"], label="alive")
    ax.scatter(ranks[~alive], strength[~alive], marker="x", color="0.4", label="dead")
    if not np.isnan(report.beta):
        ax.axhline(report.beta, color="k", ls="--", lw=1)
        ax.text(
            0.02, report.beta, f"β = {report.beta:.3g}", transform=ax.get_yaxis_transform(),
            va="bottom",
        )  # fmt: skip
    ax.margins(y=0.2)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.axvline(report.active_dimensions + 0.5, color="0.6", ls=":")
    ax.set_yscale("log")
    ax.set(
        xlabel="direction in the data",
        ylabel="variance over noise",
        title=f"in theory {int(alive.sum())} alive, used {report.active_dimensions}",
    )
    ax.legend(frameon=False, loc="best")


@styled
def collapse_history(
    history: dict[str, pd.DataFrame],
    ax: Axes | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Draw mutual information and active dimensions during training, beside β.

    Parameters
    ----------
    history
        ``model.history`` of a model trained with ``collapse_guard``.
    ax, show, save
        Axes (a new figure if None), show the figure, and a file to save it to.

    Returns
    -------
    The axes; β is on a second axis.

    Raises
    ------
    KeyError
        If there was no guard.

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
        raise KeyError("The history has no 'active_dimensions': train with collapse_guard=True.")
    ax = plt.subplots(figsize=(5, 3.4), layout="constrained")[1] if ax is None else ax
    for name, style in {"mutual_information": "-", "active_dimensions": "--"}.items():
        values = history[name].iloc[:, 0].astype(float)
        epochs, label = np.arange(1, len(values) + 1), name.replace("_", " ")
        ax.plot(epochs, values, style, color="k", label=label)
    beside = ax.twinx()
    beside.spines.right.set_visible(True)
    beta = history["beta"].iloc[:, 0].astype(float)
    beside.plot(np.arange(1, len(beta) + 1), beta, ":", color=NOISE, label="β")
    beside.set_ylabel("β")
    ax.set(xlabel="epoch", ylabel="nats, and dimensions")
    handles = [*ax.get_lines(), *beside.get_lines()]
    ax.legend(handles, [str(line.get_label()) for line in handles], loc="center right")
    return finish(ax, show, save)
