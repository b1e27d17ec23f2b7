"""Choosing β from a rate-distortion curve, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from betavi._tables import lookup

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd


@dataclass(frozen=True)
class BetaSuggestion:
    """A suggested β and the reason for it.

    Parameters
    ----------
    beta, criterion, reason
        The suggestion, the criterion that it follows, and a description of the curve at that β.

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
        f"the evidence lower bound is highest there, at {best['elbo']:.1f} nats per cell "
        f"(rate {best['rate']:.1f}, distortion {best['distortion']:.1f})."
    )
    if best["beta"] in (curve["beta"].min(), curve["beta"].max()):
        reason += " It is an end of the range: a wider one may hold a better β."
    return BetaSuggestion(float(best["beta"]), "held_out", reason)


def _knee(curve: pd.DataFrame, _rate: float | None) -> BetaSuggestion:
    # how far each point lies below the straight line between the ends, both axes from 0 to 1
    rate, distortion = (curve[name].to_numpy() for name in ("rate", "distortion"))
    x = (rate - rate.min()) / np.ptp(rate)
    y = (distortion - distortion.min()) / np.ptp(distortion)
    best = int(np.argmin(x + y))
    reason = (
        f"the curve bends most there. Of the {np.ptp(rate):.1f} nats of rate between the ends it "
        f"keeps {rate[best] - rate.min():.1f}, and of the {np.ptp(distortion):.1f} nats of "
        f"distortion that they save it saves {distortion.max() - distortion[best]:.1f}."
    )
    return BetaSuggestion(float(curve["beta"].iloc[best]), "knee", reason)


def _rate(curve: pd.DataFrame, rate: float | None) -> BetaSuggestion:
    low, high = curve["rate"].min(), curve["rate"].max()
    if rate is None or not low <= rate <= high:
        raise ValueError(
            f"criterion='rate' needs a rate on the curve, {low:.2f} to {high:.2f} nats per cell, "
            f"not {rate!r}."
        )
    ordered = curve.sort_values("rate")
    log_beta = np.interp(rate, ordered["rate"], np.log(ordered["beta"]))
    beta = np.clip(np.exp(log_beta), curve["beta"].min(), curve["beta"].max())
    reason = (
        f"the rate is about {rate:g} nats per cell there, read off between points of the curve."
    )
    return BetaSuggestion(float(beta), "rate", reason)


CRITERIA: dict[str, Callable[[pd.DataFrame, float | None], BetaSuggestion]] = {
    "held_out": _held_out,
    "knee": _knee,
    "rate": _rate,
}
"""Ways to choose, by the name a user gives, ``criterion=``."""


def suggest(
    curve: pd.DataFrame, criterion: str = "held_out", rate: float | None = None
) -> BetaSuggestion:
    """Choose a β from a curve.

    Parameters
    ----------
    curve
        Columns ``beta``, ``rate``, ``distortion`` and ``elbo``, one row per β.
    criterion, rate
        ``"held_out"``, the highest ELBO; ``"knee"``, the largest bend of the curve; or ``"rate"``,
        the β of the given rate in nats per cell.

    Returns
    -------
    The β and the reason.

    Raises
    ------
    ValueError
        If the criterion is unknown, the curve has one point, is flat or not finite, or the rate is
        not on it.

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
            "One point is nothing to choose from. Train every β in a range at once with "
            "BetaVI(adata, beta=(0.1, 10))."
        )
    terms = curve[["rate", "distortion", "elbo"]].to_numpy(dtype=float)
    if not (np.isfinite(terms).all() and np.ptp(terms[:, 0]) and np.ptp(terms[:, 1])):
        raise ValueError("The curve is flat or not finite: there is nothing to choose by.")
    return choose(curve, rate)
