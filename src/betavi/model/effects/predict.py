"""Prediction of conditions, also of combinations that were not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from betavi._tables import close_matches
from betavi.data import COUNTS
from betavi.model.effects.contexts import in_context
from betavi.model.effects.draws import condition_draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.model.core.latent_model import LatentModel
    from betavi.module.effect_fit import EffectEstimate

TARGET = 1e4
"""Total of a predicted profile, as is usual with scanpy."""


class Request(NamedTuple):
    """A condition to predict.

    ``parts`` are the codes of its perturbations. ``row`` are the values of the effects, ``(n_effects,)``; ``n_new_pairs`` is the number of pairs that
    were not measured.
    """

    name: str
    context: int
    parts: np.ndarray
    row: np.ndarray
    n_new_pairs: int


def predict(
    model: LatentModel,
    perturbation: str | Sequence[str],
    dose: float | Sequence[float] | None = None,
    context: Any = None,
    level: float = 0.9,
    seed: int = 0,
) -> AnnData:
    """Predict the mean expression of conditions, with intervals."""
    model._check_if_trained()
    names = [perturbation] if isinstance(perturbation, str) else list(perturbation)
    estimate, rng = model.module.stored_estimate(), np.random.default_rng(seed)
    contexts = contexts_named(model, context)
    tail = (1 - level) / 2
    found: dict[str, list[np.ndarray]] = {}
    requests = [request(model, estimate, name, dose, code) for name in names for code in contexts]
    for each in requests:
        row, unmeasured = in_context(estimate, each.row, each.parts, each.context)
        drawn = condition_draws(
            estimate, row, each.context, rng, each.n_new_pairs, unmeasured=unmeasured
        )
        change = np.log2(drawn.condition) - np.log2(drawn.control)
        profile = TARGET * drawn.condition
        values = {
            "mean": TARGET * drawn.mean,
            "lower": np.quantile(profile, tail, axis=0),
            "upper": np.quantile(profile, 1 - tail, axis=0),
            "lfc": np.log2(drawn.mean) - np.log2(drawn.control_mean),
            "lfc_lower": np.quantile(change, tail, axis=0),
            "lfc_upper": np.quantile(change, 1 - tail, axis=0),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    layers = {name: np.stack(rows).astype(np.float32) for name, rows in found.items()}
    obs = pd.DataFrame({"perturbation": [each.name for each in requests]})
    if len(model.conditions.contexts) > 1:
        obs["context"] = [model.conditions.contexts[each.context] for each in requests]
    obs["is_measured"] = [each.n_new_pairs == 0 for each in requests]
    obs.index = obs.astype(str).agg(", ".join, axis=1) if len(obs.columns) > 2 else obs.iloc[:, 0]
    obs.index.name = None
    mean = layers.pop("mean")
    return AnnData(mean, obs=obs, var=pd.DataFrame(index=model.features(COUNTS)), layers=layers)


def contexts_named(model: LatentModel, context: Any) -> list[int]:
    """Return the codes of the contexts to predict in. None means all."""
    known = list(model.conditions.contexts)
    if context is None:
        return list(range(len(known)))
    several = [context] if isinstance(context, str) or np.ndim(context) == 0 else list(context)
    for name in several:
        if name not in known:
            raise KeyError(f"The model has no context {name!r}. {close_matches(name, known)}")
    return [known.index(name) for name in several]


def request(
    model: LatentModel, estimate: EffectEstimate, name: str, dose: Any, context: int
) -> Request:
    """Return the condition with a name, as the effects' design reads it."""
    conditions = model.conditions
    codes = conditions.codes_of(name)
    doses = None
    if conditions.doses is not None:
        if dose is None:
            raise ValueError(f"The model has doses. Pass the dose of {name!r}: predict(..., dose=...)")
        doses = np.broadcast_to(np.asarray(dose, dtype=np.float32), len(codes))
    elif dose is not None:
        raise ValueError("`dose` was passed, but the model was set up without `dose_key`.")
    row = estimate.design.row(codes, doses, context)
    measured = {tuple(pair) for pair in conditions.pairs.tolist()}
    pairs = {tuple(sorted((a, b))) for i, a in enumerate(codes) for b in codes[i + 1 :]}
    return Request(name, context, codes, row, len(pairs - measured))
