"""Groups of cells that the batch determines, so that they cannot be compared after its removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from betavi.diagnostics.trust.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFOUNDED, PARTLY = 0.95, 0.5
"""Shares of the entropy of groups that the batch explains, from which on groups are confounded with
the batch, and partly confounded. Not tuned."""


class Confounding(NamedTuple):
    """Relation of a column of groups to the batch.

    Parameters
    ----------
    share
        Share of the entropy of the groups that the batch explains, from 0 to 1.
    is_renamed
        True if each group has one batch, too: the column may be another name of the batch.

    Examples
    --------
    >>> Confounding(1.0, False).share
    1.0
    """

    share: float
    is_renamed: bool


def determined_by(batch: np.ndarray, groups: np.ndarray) -> Confounding:
    """Measure how much the batch of a cell tells about its group (Theil's uncertainty coefficient).

    Parameters
    ----------
    batch, groups
        Batch and group of each cell, ``(n_cells,)``, of any type.

    Returns
    -------
    The share, 0 for a single group, and True if groups and batches are the same.

    Examples
    --------
    >>> import numpy as np
    >>> batch = np.repeat(["a", "b", "c", "d"], 5)
    >>> determined_by(batch, np.repeat(["ctrl", "stim"], 10))
    Confounding(share=1.0, is_renamed=False)
    """
    table = pd.crosstab(np.asarray(batch).astype(str), np.asarray(groups).astype(str)).to_numpy()
    joint = table / table.sum()
    within = _entropy(joint.ravel()) - _entropy(joint.sum(axis=1))
    whole = _entropy(joint.sum(axis=0))
    share = 1 - within / whole if whole > 0 else 0.0
    is_renamed = bool(((table > 0).sum(axis=0) == 1).all() and share >= CONFOUNDED)
    return Confounding(float(np.clip(share, 0, 1)), is_renamed)


def judge_conditions(
    found: Mapping[str, Confounding], batch: str, purposes: tuple[str, ...] = ("conditions",)
) -> list[Finding]:
    """Report the groups that cannot be compared, because the model removes the batch.

    Parameters
    ----------
    found
        Relation of each column of ``obs`` to the batch.
    batch
        Name of the column of the batch.
    purposes
        Uses that suffer.

    Returns
    -------
    Findings.

    Examples
    --------
    >>> judge_conditions({"stim": Confounding(1.0, True)}, "donor")[0].level
    'stop'
    """
    findings = []
    for name, (share, is_renamed) in found.items():
        columns = f"obs[{name!r}]", f"the batch, obs[{batch!r}]"
        if share >= CONFOUNDED:
            text = (
                f"{columns[0]} is confounded with {columns[1]}: each batch has cells of one group only. "
                "The model cannot tell differences between these groups from differences between "
                "batches, which it is meant to remove."
            )
            remedy = (
                f"Do not compare groups of {columns[0]} with this model. To compare them, train without "
                f"batch_key, or with another column whose batches have cells of several groups, such as the "
                "donor. Or, sum the raw counts of each batch, and test the sums."
            )
            if is_renamed:
                remedy += (
                    f" If {columns[0]} is only another name of the batch, ignore this finding."
                )
            findings.append(Finding("stop", "data", text, remedy, purposes))
        elif share >= PARTLY:
            text = (
                f"{columns[0]} is partly confounded with {columns[1]}: the batch explains {share:.0%} of "
                "the entropy of the groups. The model cannot tell some differences between them from batches."
            )
            remedy = f"Compare groups of {columns[0]} within batches."
            findings.append(Finding("care", "data", text, remedy, purposes))
    return findings


def _entropy(shares: np.ndarray) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())
