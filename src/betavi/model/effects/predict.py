"""Prediction of conditions, also of combinations that were not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from betavi._tables import check_flag, close_matches
from betavi.data import COUNTS
from betavi.data.conditions import split_condition
from betavi.model.effects.cells import counterfactual, new_cell_quantiles
from betavi.model.effects.contexts import in_context
from betavi.model.effects.curves import curve_factors
from betavi.model.effects.draws import N_DRAWS, check_level, condition_draws
from betavi.model.effects.embedding import check_embedding, new_effects
from betavi.model.setup.arguments import check_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.model.core.latent_model import LatentModel
    from betavi.model.effects.draws import ConditionDraws
    from betavi.model.effects.embedding import NewEffects
    from betavi.module.effect_fit import EffectEstimate

TARGET = 1e4
"""Total of a predicted profile, as is usual with scanpy."""


class Request(NamedTuple):
    """A condition to predict.

    ``parts`` are the codes of its perturbations, and ``row`` the values of the effects,
    ``(n_effects,)``. ``n_new_pairs`` is the number of pairs that were not measured. ``unmeasured`` are
    the factors of deviations in the context that were not measured. ``new`` are effects that were
    predicted from an embedding. ``doses`` are those of the perturbations.
    """

    name: str
    context: int
    parts: np.ndarray
    row: np.ndarray
    n_new_pairs: int
    unmeasured: list[float]
    new: NewEffects | None = None
    doses: np.ndarray | None = None


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
        perturbations that were not measured are predicted by ridge regression on them.
    extrapolate
        Allow doses outside the measured range.
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
    ``lfc_upper``, the log2 fold change against the control. ``obs["is_measured"]`` tells whether all
    pairs and effects were measured. With ``cells``, ``X`` has the expected counts of the cells.

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
        codes = conditions.codes_of(names[0])
        doses = doses_of(estimate, names[0], codes, dose, extrapolate)
        return counterfactual(model, estimate, names[0], codes, doses, cells)
    requests = [
        request(estimate, conditions, name, dose, code, extrapolate, embedding)
        for name in names
        for code in contexts_named(conditions.contexts, context)
    ]
    return predicted(model, estimate, requests, conditions.contexts, level, seed)


def predicted(
    model: LatentModel,
    estimate: EffectEstimate,
    requests: list[Request],
    contexts: Sequence[Any],
    level: float,
    seed: int,
) -> AnnData:
    """Return profiles and intervals of conditions, one row for each."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, np.ndarray]] = []
    has_cells = model.adata is not None and model.minified_data_type is None
    for each in requests:
        factors = None
        if each.doses is not None:
            factors = curve_factors(estimate, each.parts, each.doses, rng, N_DRAWS)
        drawn = condition_draws(
            estimate, each.row, each.context, rng, each.n_new_pairs, each.unmeasured, each.new,
            factors=factors,
        )  # fmt: skip
        rows.append(intervals(drawn, level))
        if has_cells and each.new is None:
            ends = new_cell_quantiles(model, each.row, each.context, level, seed)
            rows[-1] |= {"cell_lower": TARGET * ends[0], "cell_upper": TARGET * ends[1]}
    # predictions from an embedding have no interval of a new cell
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    layers = {name: np.stack([row[name] for row in rows]).astype(np.float32) for name in shared}
    obs = pd.DataFrame({"perturbation": [each.name for each in requests]})
    if len(contexts) > 1:
        obs["context"] = [contexts[each.context] for each in requests]
    obs.index = pd.Index(obs.astype(str).agg(" in ".join, axis=1).to_list())
    obs["is_measured"] = [
        not (each.n_new_pairs or each.unmeasured or each.new) for each in requests
    ]
    mean = layers.pop("mean")
    return AnnData(mean, obs=obs, var=pd.DataFrame(index=model.features(COUNTS)), layers=layers)


def intervals(drawn: ConditionDraws, level: float) -> dict[str, np.ndarray]:
    """Return the mean profile and log2 fold changes of a condition, with intervals."""
    tail = (1 - level) / 2
    change = np.log2(drawn.condition) - np.log2(drawn.control)
    profile = TARGET * drawn.condition
    return {
        "mean": TARGET * drawn.mean,
        "lower": np.quantile(profile, tail, axis=0),
        "upper": np.quantile(profile, 1 - tail, axis=0),
        "lfc": np.log2(drawn.mean) - np.log2(drawn.control_mean),
        "lfc_lower": np.quantile(change, tail, axis=0),
        "lfc_upper": np.quantile(change, 1 - tail, axis=0),
    }


def names_listed(perturbation: Any) -> list[str]:
    """Return the names of conditions as a list. Raise an error without any, or for other values."""
    check_arguments({"perturbation": perturbation})
    several = () if perturbation is None else perturbation
    names = [perturbation] if isinstance(perturbation, str) else list(several)
    if not names:
        raise ValueError("`perturbation` is empty. Name at least one condition.")
    return names


def contexts_named(known: Sequence[Any], context: Any) -> list[int]:
    """Return the codes of the contexts to predict in. None means all."""
    known = list(known)
    if context is None:
        return list(range(len(known)))
    if known == [""]:
        raise ValueError("`context` was passed, but the model was set up without `context_key`.")
    several = np.ravel(np.asarray(context, dtype=object)).tolist()
    if not several:
        raise ValueError("`context` is empty. Name at least one context, or pass None to use all.")
    for name in several:
        if name not in known:
            raise KeyError(f"The model has no context {name!r}. {close_matches(name, known)}")
    return [known.index(name) for name in several]


def request(
    estimate: EffectEstimate,
    conditions: Any,
    name: str,
    dose: Any,
    context: int,
    extrapolate: bool,
    embedding: pd.DataFrame | None = None,
) -> Request:
    """Return the condition with a name, as the effects' design reads it."""
    parts = split_condition(name, conditions.control, conditions.separator)
    added = [part for part in parts if part not in conditions.perturbations]
    if embedding is None or not set(added) <= set(embedding.index):
        codes, added = conditions.codes_of(name), []
    else:
        codes = conditions.codes_of(conditions.separator.join(sorted(set(parts) - set(added))))
    new = None
    if embedding is not None and added:
        new = new_effects(estimate, conditions, embedding, added)
    if new is not None and estimate.curves is not None:
        raise ValueError("`embedding` is not available for models with doses.")
    doses = doses_of(estimate, name, codes, dose, extrapolate)
    row, unmeasured = in_context(
        estimate, estimate.design.row(codes, doses, context), codes, context
    )
    measured = {tuple(pair) for pair in conditions.pairs.tolist()}
    pairs = {tuple(sorted((a, b))) for i, a in enumerate(codes) for b in codes[i + 1 :]}
    # pairs with a new perturbation
    n_new = sum(len(parts) - 1 - place for place in range(len(added)))
    return Request(name, context, codes, row, len(pairs - measured) + n_new, unmeasured, new, doses)


def doses_of(
    estimate: EffectEstimate, name: str, codes: np.ndarray, dose: Any, extrapolate: bool
) -> np.ndarray | None:
    """Return the doses of the perturbations of a condition, or None for a model without doses."""
    if estimate.curves is None:
        if dose is not None:
            raise ValueError("`dose` was passed, but the model was set up without `dose_key`.")
        return None
    if dose is None and len(codes):
        raise ValueError(f"The model has doses. Pass the dose of {name!r}: predict(..., dose=...)")
    try:
        given = np.asarray(0.0 if dose is None else dose, dtype=np.float64)
    except (OverflowError, TypeError, ValueError):
        given = np.empty((0, 0))
    if given.ndim > 1 or (given.ndim == 1 and len(given) != len(codes)):
        raise ValueError(
            f"`dose` must be one number, or one for each perturbation of {name!r}, not {dose!r}."
        )
    doses = np.array(np.broadcast_to(given, len(codes)))
    measured = estimate.design.measured_doses.numpy()
    low, high = measured.min(), measured.max()
    # measured doses are stored in single precision
    outside = (doses < low * (1 - 1e-6)) | (doses > high * (1 + 1e-6))
    if len(codes) and (not np.isfinite(doses).all() or (doses <= 0).any()):
        raise ValueError(f"`dose` must be above 0 and finite, not {dose!r}.")
    if outside.any() and not extrapolate:
        raise ValueError(
            f"The `dose` {doses[outside][0]:g} is outside the measured doses, {low:g} to {high:g}. To "
            "predict from the fitted curve nevertheless, pass extrapolate=True."
        )
    return doses
