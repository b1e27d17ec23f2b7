"""True effects of simulated perturbations on the log expression of genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from betavi.datasets.draws import check_rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.random import Generator

CONTROL = "control"
PROGRAMS_OF_PERTURBATION = 2
SLOPES = 1.0, 3.0
"""Lowest and highest Hill slope."""

CONTEXT_SHIFT_SD = 0.5
"""Standard deviation of the log expression of a gene between contexts, without perturbations."""


@dataclass(frozen=True)
class EffectDistribution:
    """Distribution from which the true effects of perturbations are drawn.

    All standard deviations are in natural log units of expression.

    Parameters
    ----------
    share_affected
        Share of the genes with an effect of a perturbation. With programs, the share of the genes
        in a program.
    effect_sd
        Standard deviation of the effects on these genes.
    n_programs
        Number of gene programs. Each perturbation changes two of them, so that the matrix of
        effects has at most this rank. By default 0: effects of perturbations are independent.
    share_interacting
        Share of the genes affected by a perturbation of a pair that have an interaction. By default
        0: combinations are additive.
    interaction_sd
        Standard deviation of the interactions on these genes.
    context_sd
        Standard deviation of the deviations of an effect in each context, on affected genes. By
        default 0: effects are the same in all contexts.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> import betavi
    >>> effects = betavi.datasets.EffectDistribution(n_programs=3, share_interacting=0.2)
    >>> adata = betavi.datasets.simulate_perturbations(n_combinations=4, effects=effects)
    >>> adata.uns["truth"]["interactions"].shape
    (500, 4)
    """

    share_affected: float = 0.1
    effect_sd: float = 1.0
    n_programs: int = 0
    share_interacting: float = 0.0
    interaction_sd: float = 1.0
    context_sd: float = 0.0

    def __post_init__(self) -> None:
        numbers = vars(self).items()
        check_rules((k, x, x >= 0, "at least 0") for k, x in numbers if "share" not in k)
        check_rules((k, x, 0 <= x <= 1, "between 0 and 1") for k, x in numbers if "share" in k)


def draw_truth(
    rng: Generator,
    distribution: EffectDistribution,
    genes: pd.Index,
    sizes: tuple[int, int, int],
    doses: Sequence[float] | None,
) -> dict[str, Any]:
    """Draw tables of effects for numbers of perturbations, pairs and contexts."""
    n_perturbations, n_pairs, n_contexts = sizes
    singles = [f"P{i}" for i in range(n_perturbations)]
    contexts = [f"context_{i}" for i in range(n_contexts)]
    truth: dict[str, Any] = _draw_effects(rng, distribution, genes, singles)
    affected = truth["effects"] != 0
    truth["context_deviations"] = {
        context: distribution.context_sd * affected * rng.normal(size=affected.shape)
        for context in contexts
    }
    sd = CONTEXT_SHIFT_SD if n_contexts > 1 else 0.0
    shifts = rng.normal(scale=sd, size=(len(genes), n_contexts))
    truth["context_shifts"] = pd.DataFrame(shifts, genes, contexts)
    if doses is not None:
        truth["dose_curves"] = _draw_dose_curves(rng, singles, doses)
    truth["interactions"] = _draw_interactions(rng, distribution, affected, n_pairs)
    return truth


def _draw_effects(
    rng: Generator, distribution: EffectDistribution, genes: pd.Index, singles: list[str]
) -> dict[str, pd.DataFrame]:
    """Draw effects, ``(n_genes, n_perturbations)``, and the programs that they consist of."""
    n_programs = distribution.n_programs
    shares = np.full((len(genes), n_programs or len(singles)), distribution.share_affected)
    drawn = _sparse_normal(rng, shares, distribution.effect_sd)
    if not n_programs:
        return {"effects": pd.DataFrame(drawn, genes, singles)}
    order = np.argsort(rng.random((n_programs, len(singles))), axis=0)
    weights = (order < PROGRAMS_OF_PERTURBATION) * rng.normal(size=order.shape)
    names = [f"program_{i}" for i in range(n_programs)]
    return {
        "effects": pd.DataFrame(drawn @ weights, genes, singles),
        "programs": pd.DataFrame(drawn, genes, names),
        "program_weights": pd.DataFrame(weights, names, singles),
    }


def _draw_interactions(
    rng: Generator, distribution: EffectDistribution, affected: pd.DataFrame, n_pairs: int
) -> pd.DataFrame:
    """Draw different pairs, and their interactions on genes that either perturbation affects."""
    first, second = np.triu_indices(affected.shape[1], 1)
    chosen = np.sort(rng.permutation(len(first))[:n_pairs])
    first, second = first[chosen], second[chosen]
    mask = affected.to_numpy()
    shares = distribution.share_interacting * (mask[:, first] | mask[:, second])
    drawn = _sparse_normal(rng, shares, distribution.interaction_sd)
    singles = affected.columns
    return pd.DataFrame(drawn, affected.index, singles[first] + "+" + singles[second])


def _draw_dose_curves(rng: Generator, singles: list[str], doses: Sequence[float]) -> pd.DataFrame:
    """Draw a Hill curve for each perturbation, with an EC50 in the range of the doses."""
    ec50 = np.exp(rng.uniform(np.log(min(doses)), np.log(max(doses)), len(singles)))
    return pd.DataFrame({"ec50": ec50, "slope": rng.uniform(*SLOPES, len(singles))}, singles)


def condition_shift(
    truth: Mapping[str, Any], perturbation: str, context: str, dose: float | None = None
) -> np.ndarray:
    """Return the difference in log expression from ``var["log_base"]``, without noise.

    The responses of both perturbations of a pair, each between 0 and 1, scale their interaction.
    """
    shift = truth["context_shifts"][context].to_numpy(copy=True)
    if perturbation == CONTROL:
        return shift
    singles = perturbation.split("+")
    responses = [_response(truth, single, dose) for single in singles]
    for single, response in zip(singles, responses, strict=True):
        deviation = truth["context_deviations"][context][single]
        shift += response * (truth["effects"][single] + deviation).to_numpy()
    if len(singles) > 1:
        shift += np.prod(responses) * truth["interactions"][perturbation].to_numpy()
    return shift


def _response(truth: Mapping[str, Any], single: str, dose: float | None) -> float:
    """Return the share of the full effect at a dose. It is 1 for perturbations without doses."""
    if dose is None:
        return 1.0
    ec50, slope = truth["dose_curves"].loc[single, ["ec50", "slope"]]
    return float(dose**slope / (dose**slope + ec50**slope))


def _sparse_normal(rng: Generator, shares: np.ndarray, sd: float) -> np.ndarray:
    """Draw normal values, each of them 0 with a probability of one minus its share."""
    return (rng.random(shares.shape) < shares) * rng.normal(scale=sd, size=shares.shape)
