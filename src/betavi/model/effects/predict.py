"""Prediction of conditions, also of combinations that were not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pandas as pd
from anndata import AnnData

from betavi._tables import check_flag
from betavi.data import COUNTS
from betavi.data.conditions import split_condition
from betavi.data.doses import joined_doses
from betavi.diagnostics.effects.baselines import TARGET
from betavi.model.effects.cells import counterfactual, new_cell_quantiles
from betavi.model.effects.draws import check_level, condition_draws
from betavi.model.effects.embedding import check_embedding
from betavi.model.effects.request import condition_named, contexts_named, is_measured, names_listed
from betavi.model.setup.arguments import check_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.data.conditions import Conditions
    from betavi.model.core.latent_model import LatentModel
    from betavi.model.effects.draws import Condition, ConditionDraws
    from betavi.module.effect_fit import EffectEstimate


def predict(
    model: LatentModel,
    perturbation: str | Sequence[str],
    dose: float | Sequence[float] | None = None,
    context: Any = None,
    cells: Any = None,
    embedding: pd.DataFrame | None = None,
    extrapolate: bool = False,
    level: float = 0.9,
    seed: int = 0,
) -> AnnData:
    """Predict the expression of conditions, with intervals.

    Effects of several perturbations are added on the scale of log rates. The interaction of a pair is
    added if the pair was measured. Otherwise, its interaction is unknown, and widens the intervals as
    much as the interactions of measured pairs vary.

    Parameters
    ----------
    perturbation
        Name of a condition, or several names. Combinations such as ``"A+B"`` need not be measured.
    dose
        Dose, or a list with one dose for each perturbation of a combination. Only for models with
        doses.
    context
        Context to predict in, or several contexts. If None, all contexts. In a context where a
        perturbation was not measured, its effect is the shared effect and that of similar contexts.
    cells
        Names, positions or a mask of measured cells. If given, the result has one row for each of
        these cells, as if it had the condition ``perturbation``: its state stays the same.
    embedding
        Coordinates of perturbations, a table with one row for each. If given, the effects of
        perturbations that were not measured are predicted by ridge regression on them. On real data,
        this did not help: for six knock-outs of Datlinger (2021), the mean L2 was 30.1 with and
        without their predicted effect.
    extrapolate
        Allow doses outside the measured range of a perturbation.
    level
        Level of the intervals.
    seed
        Seed of the draws.

    Returns
    -------
    An AnnData with one row for each condition and context. ``X`` is the mean profile, in counts per
    ten thousand. Layers: ``lower`` and ``upper``, the interval of the mean of many cells, which
    includes the noise between replicates if they are registered; ``cell_lower`` and ``cell_upper``,
    the interval of a new cell, if the model has its object; ``lfc``, ``lfc_lower`` and
    ``lfc_upper``, the log2 fold change against the control. With doses, ``obs["dose"]`` has them.
    ``obs["is_measured"]`` is True if cells with this condition and dose, and control cells, were
    measured in the context. Rows are named by the perturbations in alphabetical order, without the
    control. With ``cells``, ``X`` has the expected counts of the cells.

    Raises
    ------
    KeyError
        If a perturbation or context is unknown.
    ValueError
        If a dose is missing or outside the measured range, or an argument does not fit the model.
    RuntimeError
        If the model is not trained.

    References
    ----------
    Ahlmann-Eltze et al. (2025), Deep-learning-based gene perturbation effect prediction does not yet
    outperform simple linear baselines.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_perturbations(n_cells=400, n_perturbations=3)
    >>> betavi.EffectVI.setup_anndata(adata, perturbation_key="perturbation")
    >>> model = betavi.EffectVI(adata)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> predicted = model.predict(["P0", "P0+P1"])
    >>> predicted.shape, predicted.obs["is_measured"].tolist()
    ((2, 500), [True, False])
    """
    model._check_if_trained(warn=False)
    check_arguments({"seed": seed})
    check_flag("extrapolate", extrapolate)
    check_level(level)
    names = names_listed(perturbation)
    if embedding is not None:
        check_embedding(embedding)
    estimate, conditions = model.module.stored_estimate(), model.conditions
    if cells is not None:
        if len(names) > 1 or context is not None or embedding is not None:
            raise ValueError("With `cells`, pass one condition, without `context` and `embedding`.")
        condition = condition_named(estimate, conditions, names[0], dose, 0, extrapolate)
        return counterfactual(model, estimate, names[0], condition, cells)
    requests = [
        (
            conditions.name_of(name),
            condition_named(estimate, conditions, name, dose, code, extrapolate, embedding),
        )
        for name in names
        for code in contexts_named(conditions.contexts, context)
    ]
    return predicted(model, estimate, requests, level, seed)


def predicted(
    model: LatentModel,
    estimate: EffectEstimate,
    requests: list[tuple[str, Condition]],
    level: float,
    seed: int,
) -> AnnData:
    """Return profiles and intervals of conditions with their names, one row for each."""
    rows: list[dict[str, np.ndarray]] = []
    for name, condition in requests:
        rng = generator_of(model.conditions, name, seed)
        rows.append(intervals(condition_draws(estimate, condition, rng), level))
        if model.adata is not None and condition.new is None:
            ends = new_cell_quantiles(model, condition.row, condition.context, level, seed)
            rows[-1] |= {"cell_lower": TARGET * ends[0], "cell_upper": TARGET * ends[1]}
    # predictions from an embedding have no interval of a new cell
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    layers = {name: np.stack([row[name] for row in rows]).astype(np.float32) for name in shared}
    mean, var = layers.pop("mean"), pd.DataFrame(index=model.features(COUNTS))
    obs = annotation(estimate, model.conditions, requests)
    return AnnData(mean, obs=obs, var=var, layers=layers)


def generator_of(conditions: Conditions, name: str, seed: int) -> np.random.Generator:
    """Return a generator for a condition. It does not depend on other names, nor on their order."""
    parts = split_condition(name, conditions.control, conditions.separator)
    return np.random.default_rng([seed, *sorted(crc32(part.encode()) for part in parts)])


def annotation(
    estimate: EffectEstimate, conditions: Conditions, requests: list[tuple[str, Condition]]
) -> pd.DataFrame:
    """Return name, context and dose of the conditions, and a flag for those that were measured."""
    obs = pd.DataFrame({"perturbation": [name for name, _ in requests]})
    if len(conditions.contexts) > 1:
        obs["context"] = [conditions.contexts[each.context] for _, each in requests]
    obs.index = pd.Index(obs.astype(str).agg(" in ".join, axis=1).to_list())
    doses = [each.doses for _, each in requests if each.doses is not None]
    if doses:
        obs["dose"] = [joined_doses(each, conditions.separator) for each in doses]
    is_determined = estimate.is_determined(np.stack([each.row for _, each in requests]))
    had_cells = [is_measured(estimate, conditions, each) for _, each in requests]
    obs["is_measured"] = had_cells & is_determined
    return obs


def intervals(drawn: ConditionDraws, level: float) -> dict[str, np.ndarray]:
    """Return the mean profile and log2 fold changes of a condition, with intervals."""
    tail = (1 - level) / 2
    change = np.log2(drawn.condition) - np.log2(drawn.control)
    predicted = np.log2(drawn.mean) - np.log2(drawn.control_mean)
    # a difference of medians is not the median of differences
    change += predicted - np.median(change, axis=0)
    profile = TARGET * drawn.condition
    return {
        "mean": TARGET * drawn.mean,
        "lower": np.quantile(profile, tail, axis=0),
        "upper": np.quantile(profile, 1 - tail, axis=0),
        "lfc": predicted,
        "lfc_lower": np.quantile(change, tail, axis=0),
        "lfc_upper": np.quantile(change, 1 - tail, axis=0),
    }
