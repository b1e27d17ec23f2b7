"""Training curves: a run that was too short, that diverged, or that memorised its cells."""

from __future__ import annotations

import numpy as np

from betavi.diagnostics.trust.verdict import Finding

STILL_FALLING, OVERFITTED = 0.05, 0.2
"""Share of the whole decrease in loss that the last tenth of a run may have, and share by which the
held-out loss may rise again. Not tuned."""

FEWEST_EPOCHS = 3
"""Smallest number of epochs whose curve is judged."""

REACHED = 0.99
"""Share of the requested β from which on it counts as reached."""


def judge_training(
    loss: np.ndarray,
    held_out: np.ndarray | None = None,
    beta: float = 1.0,
    requested_beta: float = 1.0,
) -> list[Finding]:
    """Judge a training run.

    Parameters
    ----------
    loss
        Negative ELBO of training cells at each epoch, nats per cell, ``(n_epochs,)``.
    held_out
        Negative ELBO of held-out cells at some epochs. None if it was not recorded.
    beta
        β at the end of training. NaN if training kept the rate constant.
    requested_beta
        β that the user requested.

    Returns
    -------
    Findings.

    Examples
    --------
    >>> import numpy as np
    >>> judge_training(200 - 10 * np.arange(10.0))[0].text[:24]
    'The loss was still falli'
    """
    findings = []
    everything = ("map", "dimensions", "genes", "conditions")
    if not np.isfinite(loss).all():
        remedy = "Lower the learning rate, and check the counts."
        text = "The loss became infinite or NaN during training."
        return [Finding("stop", "training", text, remedy, everything)]
    if beta < REACHED * requested_beta:
        text = f"Training ended at β = {beta:.3g}, before it reached β = {requested_beta:.3g}."
        remedy = "Train for more epochs, or with a shorter warm-up: train(warmup=0.1)."
        findings.append(Finding("care", "training", text, remedy, everything))
    if len(loss) < FEWEST_EPOCHS:
        text = (
            f"The model was trained for {len(loss)} {'epoch' if len(loss) == 1 else 'epochs'} only."
        )
        findings.append(Finding("care", "training", text, "Train for more epochs.", everything))
    elif is_falling(loss):
        text = (
            f"The loss was still falling at the end: the last tenth of the epochs has {_last_share(loss):.0%} of "
            "the whole decrease."
        )
        findings.append(Finding("care", "training", text, "Train for more epochs.", everything))
    if held_out is not None and len(held_out) >= FEWEST_EPOCHS:
        rise = _rise(held_out)
        if rise > OVERFITTED:
            text = (
                "The loss of held-out cells rose again, by "
                f"{rise:.0%} of its decrease: the model memorised its training cells."
            )
            remedy = "Train for fewer epochs: train(early_stopping=True)."
            findings.append(Finding("care", "training", text, remedy, everything))
    return findings


def is_falling(loss: np.ndarray) -> bool:
    """Return True if the loss was still falling at the end of training, or has too few epochs.

    Parameters
    ----------
    loss
        Negative ELBO of training cells at each epoch, nats per cell, ``(n_epochs,)``.

    Returns
    -------
    True or False.

    Examples
    --------
    >>> import numpy as np
    >>> is_falling(200 - 10 * np.arange(10.0)), is_falling(np.array([9.0, *np.ones(30)]))
    (True, False)
    """
    return len(loss) < FEWEST_EPOCHS or _last_share(loss) > STILL_FALLING


def _last_share(loss: np.ndarray) -> float:
    n_last = max(1, len(loss) // 10)
    whole = float(loss[0] - loss[-1])
    return float(loss[-1 - n_last] - loss[-1]) / whole if whole > 0 else 0.0


def _rise(held_out: np.ndarray) -> float:
    least, whole = float(held_out.min()), float(held_out[0] - held_out.min())
    return float(held_out[-1] - least) / whole if whole > 0 else float(held_out[-1] > least)
