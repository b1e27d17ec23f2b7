"""Changes of genes along a path."""

from __future__ import annotations

import numpy as np
import pandas as pd

PSEUDO = 0.1  # pseudocount, as a share of the mean expression of all genes
WOBBLE = 0.05  # share of the change that may go the other way in a monotone gene
SURE = 2.0  # standard deviations that a switch must exceed


def genes_on_path(expression: np.ndarray, std: np.ndarray, names: pd.Index) -> pd.DataFrame:
    """Return the change of each gene along a path.

    Parameters
    ----------
    expression, std, names
        Expected expression at each step, and its standard deviation from the uncertainty of the
        position, ``(n_steps, n_genes)``, and names of the genes.

    Returns
    -------
    By gene: ``log2_fold_change`` of the last step against the first; ``direction``, ``"up"`` or
    ``"down"`` if it is monotone except for a twentieth of its change, else ``"neither"``;
    ``switch_at``, the share of the path at which half of the change in log expression is done, and
    ``switch_width``, the share from a quarter to three quarters of it (half for an even change,
    about 0 for a sudden one); ``peak_at``, the maximum; ``is_switch``, True if it is monotone, at
    least doubles or halves, and changes by more than twice the standard deviation of its log
    expression.

    Examples
    --------
    >>> steps = np.array([[1.0, 5.0], [1.0, 5.0], [8.0, 5.0]])
    >>> genes_on_path(steps, 0.01 * steps, pd.Index(["A", "B"]))["is_switch"].tolist()
    [True, False]
    """
    pseudo = PSEUDO * expression.mean()
    logs = np.log2(expression + pseudo)
    at = np.linspace(0, 1, len(logs))
    steps = np.diff(logs, axis=0)
    change = logs[-1] - logs[0]
    against = np.where(np.sign(steps) == -np.sign(change), np.abs(steps), 0).sum(axis=0)
    is_monotone = (change != 0) & (against <= WOBBLE * np.abs(change))
    direction = np.where(is_monotone, np.where(change > 0, "up", "down"), "neither")
    # as of a logarithm, to first order
    spread = (std / ((expression + pseudo) * np.log(2))).max(axis=0)
    is_switch = is_monotone & (np.abs(change) >= 1) & (np.abs(change) > SURE * spread)
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
    """Return where each gene first reaches a share of its change, interpolated, ``(n_genes,)``."""
    done = np.sign(logs[-1] - logs[0]) * (logs - logs[0])
    wanted = share * np.abs(logs[-1] - logs[0])
    after = np.maximum((done >= wanted).argmax(axis=0), 1)
    genes = np.arange(logs.shape[1])
    low, high = done[after - 1, genes], done[after, genes]
    part = np.clip((wanted - low) / np.maximum(high - low, np.finfo(float).tiny), 0.0, 1.0)
    return at[after - 1] + part * (at[after] - at[after - 1])
