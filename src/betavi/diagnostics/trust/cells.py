"""Outlying cells, and groups of cells that a model does not describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom, false_discovery_control

from betavi.diagnostics.trust.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

FDR, LEVEL = 0.1, 0.05
"""False discovery rate of the listed cells, and level of single p-values."""

MANY = 2.0
"""Ratio of low p-values to their expected number that a report warns of. Not tuned."""

SURE = 0.001
"""Probability of so many low p-values by chance that a warning needs. Not tuned."""


def outlying_cells(p_values: np.ndarray, fdr: float = FDR) -> np.ndarray:
    """Return a mask of outlying cells at a false discovery rate (Benjamini & Hochberg, 1995).

    Parameters
    ----------
    p_values
        P-values of ``support()``, ``(n_cells,)``. NaN for cells without counts.
    fdr
        False discovery rate.

    Returns
    -------
    Mask, ``(n_cells,)``.

    Examples
    --------
    >>> import numpy as np
    >>> outlying_cells(np.array([0.001, 0.5, 0.9, np.nan])).tolist()
    [True, False, False, False]
    """
    found = np.zeros(len(p_values), dtype=bool)
    known = np.isfinite(p_values)
    if known.any():
        found[known] = false_discovery_control(p_values[known]) <= fdr
    return found


def can_be_flagged(n_cells: int, n_held_out: int, fdr: float = FDR) -> bool:
    """Return True if a single cell can be outlying at a false discovery rate.

    The smallest possible p-value is 1 / (n_held_out + 1). One cell with this p-value is outlying if
    the p-value times the number of tested cells is at most the rate.

    Parameters
    ----------
    n_cells
        Number of tested cells.
    n_held_out
        Number of held-out cells that cells are compared with.
    fdr
        False discovery rate.

    Returns
    -------
    True or False.

    Examples
    --------
    >>> can_be_flagged(50, 999), can_be_flagged(1556, 311)
    (True, False)
    """
    return n_cells <= fdr * (n_held_out + 1)


def are_many(p_values: np.ndarray) -> bool:
    """Return True if more than twice as many p-values are below 0.05 as expected, and not by chance.

    Parameters
    ----------
    p_values
        P-values of some cells, ``(n_cells,)``. NaN is left out.

    Returns
    -------
    True or False.

    Examples
    --------
    >>> import numpy as np
    >>> are_many(np.full(50, 0.01)), are_many(np.linspace(0.01, 1, 100))
    (True, False)
    """
    known = p_values[np.isfinite(p_values)]
    n_low = int((known < LEVEL).sum())
    is_certain = binom.sf(n_low - 1, len(known), LEVEL) < SURE
    return bool(n_low > MANY * LEVEL * len(known) and is_certain)


def judge_cells(
    p_values: np.ndarray, groups: Mapping[str, np.ndarray], are_new: bool = False
) -> list[Finding]:
    """Judge how many cells are outlying, among all cells and in groups.

    A cell is ranked among held-out cells of all groups. A diverse group therefore has more low p-values
    than other groups, even if the model was trained on it. This is a note for cells of the model's own
    object, and a reason for care for new cells.

    Parameters
    ----------
    p_values
        P-values of ``support()``, ``(n_cells,)``.
    groups
        Mask of the cells of each group, by name.
    are_new
        True for cells of another object than the model's own.

    Returns
    -------
    Findings: more than twice as many p-values below 0.05 as expected.

    Examples
    --------
    >>> import numpy as np
    >>> p_values = np.r_[np.linspace(0.01, 1, 100), np.full(50, 0.01)]
    >>> [f.level for f in judge_cells(p_values, {"new": np.arange(150) >= 100})]
    ['care', 'note']
    """
    findings = []
    remedy = (
        "Leave the listed cells out of the conclusions, or train with more cells of their kind."
    )
    everyone = np.ones(len(p_values), dtype=bool)
    for name, mask in {"": everyone, **groups}.items():
        own = p_values[mask & np.isfinite(p_values)]
        if are_many(own):
            n_low = int((own < LEVEL).sum())
            who = f"Cells of {name}" if name else "Cells"
            text = (
                f"{who} are outlying more often than expected: {n_low} of {len(own)} p-values are below "
                f"{LEVEL} ({n_low / len(own):.0%}, expected {LEVEL:.0%})."
            )
            level = "care" if are_new or not name else "note"
            if level == "note":
                text += " The model describes them less well than other cells, or they are more diverse."
            findings.append(Finding(level, "cells", text, remedy, ("map", "genes")))
    return findings
