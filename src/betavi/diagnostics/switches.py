"""Changes of gene expression along a path."""

from __future__ import annotations

import numpy as np
import pandas as pd

PSEUDOCOUNT = 0.1  # share of the mean expression of all genes
WOBBLE = 0.05  # largest share of the change in the opposite direction in a monotone gene
N_DEVIATIONS = 2.0  # standard deviations that the change of a switch exceeds


def genes_on_path(expression: np.ndarray, std: np.ndarray, names: pd.Index) -> pd.DataFrame:
    """Return the change of each gene along a path.

    Parameters
    ----------
    expression
        Expected expression at each step, ``(n_steps, n_genes)``.
    std
        Standard deviation of ``expression`` from the uncertainty of the position,
        ``(n_steps, n_genes)``.
    names
        Gene names.

    Returns
    -------
    One row per gene. ``log2_fold_change`` compares the last step with the first. ``direction`` is
    ``"up"`` or ``"down"`` if the gene is monotone except for 5 % of its change, else ``"neither"``.
    Three columns are shares of the path. ``peak_at`` is the step with the highest expression.
    ``switch_at`` is the point at which log expression has made 50 % of its change. ``switch_width``
    is the distance between the points at 25 % and 75 % of the change: 0.5 for an even change, about
    0 for a sudden change. ``is_switch`` is True for a monotone gene whose expression changes at
    least twofold, and by more than two standard deviations of log expression.

    Examples
    --------
    >>> steps = np.array([[1.0, 5.0], [1.0, 5.0], [8.0, 5.0]])
    >>> genes_on_path(steps, 0.01 * steps, pd.Index(["A", "B"]))["is_switch"].tolist()
    [True, False]
    """
    pseudocount = PSEUDOCOUNT * expression.mean()
    logs = np.log2(expression + pseudocount)
    at = np.linspace(0, 1, len(logs))
    steps = np.diff(logs, axis=0)
    change = logs[-1] - logs[0]
    against = np.where(np.sign(steps) == -np.sign(change), np.abs(steps), 0).sum(axis=0)
    is_monotone = (change != 0) & (against <= WOBBLE * np.abs(change))
    direction = np.where(is_monotone, np.where(change > 0, "up", "down"), "neither")
    # first-order standard deviation of the logarithm
    spread = (std / ((expression + pseudocount) * np.log(2))).max(axis=0)
    is_switch = is_monotone & (np.abs(change) >= 1) & (np.abs(change) > N_DEVIATIONS * spread)
    quarter, half, three_quarters = (_first_at(logs, at, share) for share in (0.25, 0.5, 0.75))
    return pd.DataFrame(
        {
            "log2_fold_change": change,
            "direction": direction,
            "switch_at": half,
            "switch_width": three_quarters - quarter,
            "peak_at": at[logs.argmax(axis=0)],
            "is_switch": is_switch,
        },
        index=names,
    )


def _first_at(logs: np.ndarray, at: np.ndarray, share: float) -> np.ndarray:
    """Return the interpolated position of a share of the change, ``(n_genes,)``."""
    done = np.sign(logs[-1] - logs[0]) * (logs - logs[0])
    target = share * np.abs(logs[-1] - logs[0])
    after = np.maximum((done >= target).argmax(axis=0), 1)
    genes = np.arange(logs.shape[1])
    low, high = done[after - 1, genes], done[after, genes]
    part = np.clip((target - low) / np.maximum(high - low, np.finfo(float).tiny), 0.0, 1.0)
    return at[after - 1] + part * (at[after] - at[after - 1])
