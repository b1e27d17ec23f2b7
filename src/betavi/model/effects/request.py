"""Conditions that a user asks to predict: names, contexts and doses."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from betavi._tables import close_matches
from betavi.data.conditions import split_condition
from betavi.model.effects.draws import condition_in
from betavi.model.effects.embedding import new_effects
from betavi.model.setup.arguments import check_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from betavi.data.conditions import Conditions
    from betavi.model.effects.draws import Condition
    from betavi.module.effect_fit import EffectEstimate


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


def condition_named(
    estimate: EffectEstimate,
    conditions: Conditions,
    name: str,
    dose: Any,
    context: int,
    extrapolate: bool,
    embedding: pd.DataFrame | None = None,
) -> Condition:
    """Return the condition with a name, at a dose, in a context with a code."""
    parts = split_condition(name, conditions.control, conditions.separator)
    known = set(conditions.perturbations)
    if embedding is not None:
        known |= set(parts) - set(embedding.index)
    added = [part for part in parts if embedding is not None and part not in known]
    codes = conditions.codes_of([part for part in parts if part not in added])
    doses = doses_of(estimate, conditions, name, codes, dose, extrapolate)
    # names may be in any order
    order = np.argsort(codes)
    codes, doses = codes[order], None if doses is None else doses[order]
    pairs = {tuple(sorted(pair)) for pair in combinations(codes.tolist(), 2)}
    n_new = len(pairs - {tuple(pair) for pair in conditions.pairs.tolist()})
    if embedding is None or not added:
        return condition_in(estimate, codes, doses, context)._replace(n_new_pairs=n_new)
    if doses is not None:
        raise ValueError("`embedding` is not available for models with doses.")
    # all pairs with a new perturbation are new
    n_new += sum(len(parts) - 1 - place for place in range(len(added)))
    new = new_effects(estimate, conditions, embedding, added)
    return condition_in(estimate, codes, doses, context)._replace(n_new_pairs=n_new, new=new)


def doses_of(
    estimate: EffectEstimate,
    conditions: Conditions,
    name: str,
    codes: np.ndarray,
    dose: Any,
    extrapolate: bool,
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
    if len(codes) and (not np.isfinite(doses).all() or (doses <= 0).any()):
        raise ValueError(f"`dose` must be above 0 and finite, not {dose!r}.")
    for code, each in zip(codes, doses, strict=True):
        measured = estimate.doses_of(int(code))
        low, high = measured.min(initial=np.inf), measured.max(initial=-np.inf)
        # measured doses are stored in single precision
        if not extrapolate and not low * (1 - 1e-6) <= each <= high * (1 + 1e-6):
            raise ValueError(
                f"The `dose` {each:g} of {conditions.perturbations[code]!r} is outside the measured doses, "
                f"{low:g} to {high:g}. To predict from the fitted curve nevertheless, pass extrapolate=True."
            )
    return doses


def is_measured(estimate: EffectEstimate, conditions: Conditions, condition: Condition) -> bool:
    """Return True if cells had this condition, at these doses, in a context with control cells."""
    here = estimate.measured[estimate.measured[:, 2] == condition.context]
    known = [conditions.key_of(code) for code in here]
    if condition.new or not any(not parts for parts, _ in known):
        return False
    doses = () if condition.doses is None else condition.doses
    return any(
        parts == tuple(condition.parts) and np.allclose(measured or (), doses, rtol=1e-6, atol=0)
        for parts, measured in known
    )
