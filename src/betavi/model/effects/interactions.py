"""Interactions of measured pairs: departures from the sum of both effects."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, t

from betavi.data import COUNTS
from betavi.model.setup.arguments import check_arguments
from betavi.nn.effects import INTERACTION, MAIN

if TYPE_CHECKING:
    from betavi.model.core.latent_model import LatentModel
    from betavi.module.effect_fit import EffectEstimate

LARGEST_ERROR = 4.0
"""Standard error, in log2 units, from which on a gene has too few counts for a test."""

LOG2 = np.log(2.0)

NEAR_ONE = 0.1
"""Distance of the magnitude from 1 up to which interactions go in both directions. Not tuned."""


def interactions(model: LatentModel, fdr: float = 0.1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the interactions of measured pairs, for each gene and for each pair.

    An interaction is the log fold change of a pair minus the sum of those of both perturbations.

    Parameters
    ----------
    fdr
        False discovery rate below which a gene interacts, from 0 to 1.

    Returns
    -------
    Two tables. The first has one row for each pair and gene. ``estimate`` is the interaction and
    ``error`` its standard error, in log2 units. Both do not use the prior of interactions, and give
    ``p_value``. ``fdr`` is adjusted over the genes of the pair (Benjamini & Hochberg, 1995).
    Both are NaN for genes with too few counts. ``shrunken`` is the posterior mean. P-values use a t
    distribution, with the degrees of freedom of the noise between replicates. Without replicates, only
    the noise of cells is tested.

    The second table has one row for each pair. ``n_genes`` is the number of interacting genes, and
    ``size`` the norm of ``shrunken``. ``magnitude`` is the slope of the pair's log fold changes on the
    sum of both effects. ``kind`` is ``"additive"`` without interacting genes. Otherwise it is
    ``"buffering"`` for a magnitude below 0.9, ``"synergistic"`` above 1.1, and ``"mixed"`` in between.
    Pairs are left out if a perturbation was not measured alone.

    Raises
    ------
    ValueError
        If no pair was measured, or no interaction can be estimated.

    References
    ----------
    Mani et al. (2008), Defining genetic interaction. Norman et al. (2019), Exploring genetic interaction
    manifolds constructed from rich single-cell phenotypes. Benjamini & Hochberg (1995), Controlling the
    false discovery rate.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_perturbations(
    ...     n_cells=600, n_genes=100, n_perturbations=3, n_combinations=1
    ... )
    >>> betavi.EffectVI.setup_anndata(adata, perturbation_key="perturbation")
    >>> model = betavi.EffectVI(adata)
    >>> model.train(max_epochs=1, train_size=1.0, enable_progress_bar=False)
    >>> genes, pairs = model.interactions()
    >>> genes.shape, pairs["kind"].tolist()
    ((100, 7), ['additive'])
    """
    model._check_if_trained(warn=False)
    check_arguments({"fdr": fdr}, inspect.signature(interactions).parameters)
    estimate, conditions = model.module.stored_estimate(), model.conditions
    columns = np.flatnonzero(estimate.kinds == INTERACTION).tolist()
    if not columns:
        raise ValueError("No combination was measured, so there are no interactions.")
    single = np.eye(len(estimate.kinds))[columns]
    is_separate = ~estimate.posterior.undetermined(single).any(axis=1)
    can_test = is_separate & has_both_alone(estimate, conditions.pairs)
    values, variances = estimate.posterior.unshrunk(np.array(columns))
    unshrunk = dict(zip(columns, zip(values, variances, strict=True), strict=True))
    genes, summaries = [], []
    for column, pair, name, can in zip(
        columns, conditions.pairs, conditions.pair_names, can_test, strict=True
    ):
        if can:
            table = of_pair(estimate, column, *unshrunk[column]).set_index(model.features(COUNTS))
            genes.append(table.rename_axis("gene").reset_index().assign(pair=name))
            summaries.append({"pair": name, **summary(estimate, column, pair, table, fdr)})
    if not genes:
        raise ValueError(
            "No interaction can be separated from the effects of its perturbations, because these were "
            "not measured alone."
        )
    by_gene = pd.concat(genes, ignore_index=True)
    order = ["pair", "gene", *by_gene.columns.drop(["pair", "gene"])]
    return by_gene[order], pd.DataFrame(summaries).set_index("pair")


def has_both_alone(estimate: EffectEstimate, pairs: np.ndarray) -> np.ndarray:
    """Return a mask of the pairs whose perturbations were both measured alone, ``(n_pairs,)``.

    For other pairs, a test would rely on the prior of interactions.
    """
    is_in = estimate.posterior.rows[:, estimate.kinds == MAIN] != 0
    is_alone = is_in[is_in.sum(axis=1) == 1].any(axis=0)
    both: np.ndarray = is_alone[pairs].all(axis=1)
    return both


def of_pair(
    estimate: EffectEstimate, column: int, values: np.ndarray, variances: np.ndarray
) -> pd.DataFrame:
    """Return the interaction of a pair for each gene, in log2 units.

    ``values`` and ``variances`` do not use the prior of interactions, and give the p-value, ``(n_genes,)``.
    """
    error = np.sqrt(variances) / LOG2
    p_value, fdr = np.full((2, len(values)), np.nan)
    has_counts = error < LARGEST_ERROR
    p_value[has_counts] = (
        2 * t.sf(np.abs(values / np.sqrt(variances)), estimate.posterior.freedom)[has_counts]
    )
    if has_counts.any():
        fdr[has_counts] = false_discovery_control(p_value[has_counts])
    shrunken = estimate.posterior.mean[column] / LOG2
    columns = {"estimate": values / LOG2, "error": error, "shrunken": shrunken}
    return pd.DataFrame(columns | {"p_value": p_value, "fdr": fdr})


def summary(
    estimate: EffectEstimate, column: int, pair: np.ndarray, table: pd.DataFrame, fdr: float
) -> dict[str, float | int | str]:
    """Return the number of interacting genes of a pair, and the size of its change beside the sum.

    ``magnitude`` is the slope of the change on the sum of both effects.
    """
    mains = np.flatnonzero(estimate.kinds == MAIN)[pair]
    total = estimate.posterior.mean[mains].sum(axis=0)
    both = total + estimate.posterior.mean[column]
    squares = np.square(total).sum()
    magnitude = float((total * both).sum() / squares) if squares else float("nan")
    n_genes = int((table["fdr"] < fdr).sum())
    kind = "mixed"
    if abs(magnitude - 1) > NEAR_ONE:
        kind = "synergistic" if magnitude > 1 else "buffering"
    return {
        "n_genes": n_genes,
        "magnitude": magnitude,
        "size": float(np.sqrt(np.square(table["shrunken"]).sum())),
        "kind": kind if n_genes else "additive",
    }
