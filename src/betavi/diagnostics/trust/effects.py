"""Trust in the effects of perturbations: baselines, separation, and states that depend on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from betavi.diagnostics.trust.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

N_NAMED = 5
"""Number of names that a finding lists."""

CLOSE = 0.02
"""Share of the distance between no change and the best baseline within which the model is as good as this
baseline. Not tuned."""

MOST_CEILING = ("split half", "better single")
"""Rows of the table that read the left-out cells, and so are no baselines."""


def judge_effects(table: pd.DataFrame, split: str, own: str = "EffectVI") -> list[Finding]:
    """Compare predictions of left-out conditions with simple baselines.

    A model that is only as good as a baseline needs care, because it adds nothing for new conditions.
    The effects of measured perturbations are not concerned.

    Parameters
    ----------
    table
        Result of ``evaluate()``, with the distance ``l2`` of each method from the truth.
    split
        Kind of the left-out conditions: ``"combination"``, ``"context"`` or ``"dose"``.
    own
        Row of the model.

    Returns
    -------
    Findings.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"l2": [2.0, 1.0]}, index=["EffectVI", "no change"])
    >>> judge_effects(table, "combination")[0].level
    'stop'
    """
    distances = table["l2"].drop(labels=[name for name in MOST_CEILING if name in table.index])
    mine, others = float(distances[own]), distances.drop(own)
    best = str(others.idxmin())
    if mine >= float(distances["no change"]):
        text = (
            f"For left-out conditions (split {split!r}), the prediction is not closer to the truth than no change at "
            f"all: distance {mine:.2f} against {distances['no change']:.2f}."
        )
        remedy = "Do not use predictions of new conditions. Measure more cells of each condition."
        return [Finding("stop", "effects", text, remedy, ("predictions",))]
    if 0 < mine - float(others[best]) <= CLOSE * float(distances["no change"] - others[best]):
        text = (
            f"Predictions of left-out conditions (split {split!r}) are no better than the baseline {best!r}: distance "
            f"{mine:.2f} against {others[best]:.2f}. For a new condition, the baseline is enough."
        )
        remedy = f"Use the baseline {best!r} for new conditions, see model.evaluate({split!r})."
        return [Finding("care", "effects", text, remedy, ("predictions",))]
    if mine > float(others[best]):
        text = (
            f"For left-out conditions (split {split!r}), the baseline {best!r} is closer to the truth than the model: "
            f"distance {others[best]:.2f} against {mine:.2f}."
        )
        remedy = f"Compare predictions of new conditions with the baseline {best!r}."
        return [Finding("care", "effects", text, remedy, ("predictions",))]
    return []


def judge_separation(found: Mapping[str, Sequence[str]], n_effects: int) -> list[Finding]:
    """Report effects that cannot be separated from others or from a batch.

    Parameters
    ----------
    found
        Names of what always varies together with an effect, by name of the perturbation.
    n_effects
        Number of all perturbations.

    Returns
    -------
    Findings.

    Examples
    --------
    >>> judge_separation({"drug": ["batch"]}, 2)[0].level
    'care'
    """
    if not found:
        return []
    pairs = [f"{name} (with {', '.join(others)})" for name, others in found.items()]
    more = f" and {len(pairs) - N_NAMED} more" if len(pairs) > N_NAMED else ""
    text = (
        f"{len(pairs)} of {n_effects} effects are confounded: they never vary separately from other "
        "effects or from a batch. These are "
        f"{', '.join(pairs[:N_NAMED])}{more}."
    )
    remedy = "Do not interpret these effects. Measure controls in each batch and context."
    level = "stop" if len(pairs) >= n_effects else "care"
    return [Finding(level, "effects", text, remedy, ("effects", "predictions"))]


def judge_states(table: pd.DataFrame) -> list[Finding]:
    """Report latent states that still depend on the perturbation.

    Parameters
    ----------
    table
        Result of ``state_information()``.

    Returns
    -------
    Findings.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = {"nats": [0.3], "error": [0.01], "entropy": [1.0], "depends": [True]}
    >>> judge_states(pd.DataFrame(rows, index=["all cells"]))[0].level
    'care'
    """
    findings = []
    for name, row in table[table["depends"]].iterrows():
        text = (
            f"Latent states of {name} depend on the perturbation: {row['nats']:.2f} of "
            f"{row['entropy']:.2f} nats. The additive effects do not explain everything."
        )
        remedy = "Expect errors where a perturbation changes only some of the cells."
        findings.append(Finding("care", "effects", text, remedy, ("map", "effects", "predictions")))
    return findings
