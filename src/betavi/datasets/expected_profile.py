"""Expected expression in one condition of a simulated perturbation screen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import special

from betavi._tables import close_matches
from betavi.datasets import draws
from betavi.datasets.perturbation_effects import CONTROL, condition_shift

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def expected_profile(
    adata: AnnData, perturbation: str, dose: float | None = None, context: str | None = None
) -> pd.Series:
    """Return the true mean share of each gene in the counts of a cell in one condition.

    This is the mean over the states of the control cells, with the shift of the condition instead
    of their own. It has no noise of replicates. The condition may have no cells, for instance
    because they are held out.

    Parameters
    ----------
    adata
        Object of :func:`simulate_perturbations`, or some of its cells, with controls and all genes.
    perturbation
        ``"control"``, a perturbation or a simulated pair, such as ``"P0+P1"``.
    dose
        Dose, at least 0, if the object has doses. It may differ from the simulated doses.
    context
        Context of all cells. By default, each control cell keeps its context.

    Returns
    -------
    Series of ``n_genes`` shares with a sum of 1.

    Raises
    ------
    ValueError
        If the object was not simulated, or lacks control cells or genes, if a name is unknown, or if
        ``dose`` does not suit the object.

    Examples
    --------
    >>> import numpy as np, betavi
    >>> adata = betavi.datasets.simulate_perturbations(n_cells=300)
    >>> shares = betavi.datasets.expected_profile(adata, "P0")
    >>> control = betavi.datasets.expected_profile(adata, "control")
    >>> fold = np.log(shares / control)
    >>> bool(np.corrcoef(fold, adata.uns["truth"]["effects"]["P0"])[0, 1] > 0.99)
    True
    """
    if "truth" not in adata.uns:
        raise ValueError(
            "`adata` has no `uns['truth']`. Pass an object of `simulate_perturbations`."
        )
    truth = adata.uns["truth"]
    if not adata.var_names.equals(pd.Index(truth["effects"].index)):
        raise ValueError("`adata` must have all simulated genes, because shares depend on them.")
    known = [CONTROL, *truth["effects"], *truth["interactions"]]
    contexts = list(truth["context_shifts"])
    _check_name("perturbation", perturbation, known)
    if context is not None:
        _check_name("context", context, contexts)
    _check_dose(dose, has_doses="dose_curves" in truth, is_control=perturbation == CONTROL)
    controls = np.flatnonzero(adata.obs["perturbation"] == CONTROL)
    if not len(controls):
        raise ValueError("`adata` has no control cells. Keep them to average over their states.")
    codes = pd.Categorical(adata.obs["context"].iloc[controls], contexts).codes
    if context is not None:
        codes = np.full(len(controls), contexts.index(context))
    shifts = np.stack([condition_shift(truth, perturbation, name, dose) for name in contexts])
    total = np.zeros(adata.n_vars)
    for rows in draws.block_slices(len(controls)):
        total += expected_shares(adata, controls[rows], shifts[codes[rows]]).sum(axis=0)
    return pd.Series(total / len(controls), adata.var_names, name=perturbation)


def _check_name(parameter: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(f"`{parameter}` is unknown: {name!r}. {close_matches(name, known)}")


def _check_dose(dose: float | None, *, has_doses: bool, is_control: bool) -> None:
    if has_doses and not is_control and (dose is None or not 0 <= dose < math.inf):
        raise ValueError(f"`dose` must be a finite number of at least 0, not {dose!r}.")
    if dose is not None and not has_doses:
        raise ValueError(f"`dose` must be None, because `adata` has no doses, not {dose!r}.")


def expected_shares(adata: AnnData, rows: np.ndarray | slice, shifts: np.ndarray) -> np.ndarray:
    """Return the expected shares of genes in the counts of cells, ``(n_rows, n_genes)``."""
    logits = adata.obsm["z"][rows] @ adata.varm["loadings"].T + adata.var["log_base"].to_numpy()
    return special.softmax(logits + shifts, axis=1)
