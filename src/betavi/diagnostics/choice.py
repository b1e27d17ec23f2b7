"""Choice of β from a rate-distortion curve, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from betavi._tables import lookup

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    Criterion = Callable[[pd.DataFrame, float | None], "BetaSuggestion"]


@dataclass(frozen=True)
class BetaSuggestion:
    """Suggested β and the reason for it.

    Parameters
    ----------
    beta
        Suggested β.
    criterion
        Name of the criterion that chose β.
    reason
        Description of the curve at this β.

    Examples
    --------
    >>> print(BetaSuggestion(2.0, "knee", "the curve bends most there."))
    β = 2: the curve bends most there.
    """

    beta: float
    criterion: str
    reason: str

    def __str__(self) -> str:
        return f"β = {self.beta:.3g}: {self.reason}"


def _held_out(curve: pd.DataFrame, _rate: float | None) -> BetaSuggestion:
    best = curve.iloc[int(curve["elbo"].to_numpy().argmax())]
    reason = (
        f"the evidence lower bound is highest at this β, {best['elbo']:.1f} nats per cell "
        f"(rate {best['rate']:.1f}, distortion {best['distortion']:.1f})."
    )
    if best["beta"] in (curve["beta"].min(), curve["beta"].max()):
        reason += " This β is at an end of the range. A wider range may contain a better β."
    return BetaSuggestion(float(best["beta"]), "held_out", reason)


def _knee(curve: pd.DataFrame, _rate: float | None) -> BetaSuggestion:
    # the knee is farthest below the straight line between the ends, with both axes scaled to 0-1
    rate, distortion = (curve[name].to_numpy() for name in ("rate", "distortion"))
    x = (rate - rate.min()) / np.ptp(rate)
    y = (distortion - distortion.min()) / np.ptp(distortion)
    best = int(np.argmin(x + y))
    reason = (
        "the curve bends most at this β. "
        f"The rate is {rate[best] - rate.min():.1f} nats above its minimum (range of the curve: "
        f"{np.ptp(rate):.1f} nats), and the distortion is "
        f"{distortion.max() - distortion[best]:.1f} nats below its maximum (range of the curve: "
        f"{np.ptp(distortion):.1f} nats)."
    )
    return BetaSuggestion(float(curve["beta"].iloc[best]), "knee", reason)


def _rate(curve: pd.DataFrame, rate: float | None) -> BetaSuggestion:
    low, high = curve["rate"].min(), curve["rate"].max()
    if rate is None or not low <= rate <= high:
        raise ValueError(
            f"`rate` is {rate!r}. With criterion='rate', pass a rate on the curve: {low:.2f} to "
            f"{high:.2f} nats per cell."
        )
    ordered = curve.sort_values("rate")
    log_beta = np.interp(rate, ordered["rate"], np.log(ordered["beta"]))
    beta = np.clip(np.exp(log_beta), curve["beta"].min(), curve["beta"].max())
    reason = f"the rate is about {rate:g} nats per cell, interpolated between points of the curve."
    return BetaSuggestion(float(beta), "rate", reason)


CRITERIA: dict[str, Criterion] = {"held_out": _held_out, "knee": _knee, "rate": _rate}
"""Rules that choose β, by the value of ``criterion=``."""


def suggest(
    curve: pd.DataFrame, criterion: str = "held_out", rate: float | None = None
) -> BetaSuggestion:
    """Choose a β from a rate-distortion curve.

    Parameters
    ----------
    curve
        Columns ``beta``, ``rate``, ``distortion`` and ``elbo``, one row per β.
    criterion
        ``"held_out"`` for the highest ELBO, ``"knee"`` for the strongest bend of the curve, or
        ``"rate"`` for the β at ``rate``.
    rate
        For ``criterion="rate"``: the rate (KL divergence from the prior), nats per cell.

    Returns
    -------
    The β and the reason.

    Raises
    ------
    ValueError
        If the criterion is unknown, the rate is not on the curve, or the curve has one point, is
        flat or is not finite.

    Examples
    --------
    >>> import pandas as pd
    >>> curve = pd.DataFrame({"beta": [0.5, 1, 2], "rate": [9, 5, 2], "distortion": [50, 51, 60]})
    >>> suggest(curve.assign(elbo=-curve["rate"] - curve["distortion"]), criterion="knee").beta
    1.0
    """
    choose = lookup(CRITERIA, criterion, "criterion")
    if len(curve) < 2:
        raise ValueError(
            f"`curve` has only {len(curve)} point(s), but at least 2 are needed. Train on a range "
            "of β: BetaVI(adata, beta=(0.1, 10))"
        )
    terms = curve[["rate", "distortion", "elbo"]].to_numpy(dtype=float)
    if not (np.isfinite(terms).all() and np.ptp(terms[:, 0]) and np.ptp(terms[:, 1])):
        raise ValueError(
            "`curve` is flat, or has values that are not finite. Train on a wider range of β."
        )
    return choose(curve, rate)
