"""Effects of perturbations that were not measured, from coordinates of all perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict

from betavi.nn.effects import MAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.data.conditions import Conditions
    from betavi.module.effect_fit import EffectEstimate

PENALTIES = tuple(10.0**power for power in range(-2, 5))
"""Penalties of the ridge regression. The one with the smallest error on left-out perturbations is used."""

FEWEST, N_FOLDS = 5, 10
"""Smallest number of measured perturbations with coordinates, and number of parts to leave out."""

SMALLEST_SPREAD = 1e-8
"""Standard deviation of a coordinate, relative to its largest value, up to which it is not used. Not tuned."""


class NewEffects(NamedTuple):
    """Sum of the effects of perturbations that were not measured.

    ``mean`` and ``variance`` are those of the log rates, ``(n_genes,)``.
    """

    mean: np.ndarray
    variance: np.ndarray


def check_embedding(embedding: Any) -> None:
    """Raise an error unless an embedding is a table of numbers with one row for each name."""
    if not isinstance(embedding, pd.DataFrame):
        raise TypeError(
            f"`embedding` must be a DataFrame with names of perturbations as its index, not "
            f"{type(embedding).__name__}."
        )
    if repeated := embedding.index[embedding.index.duplicated()].tolist():
        raise ValueError(f"`embedding` has several rows for {repeated[0]!r}. Keep one of them.")
    if not all(is_numeric_dtype(kind) for kind in embedding.dtypes) or not embedding.shape[1]:
        raise ValueError("`embedding` must have columns of numbers only.")


def new_effects(
    estimate: EffectEstimate,
    conditions: Conditions,
    embedding: pd.DataFrame,
    names: Sequence[str],
) -> NewEffects:
    """Return the sum of the effects of some perturbations, predicted from their coordinates.

    The variance is that of the errors for measured perturbations that are left out.
    """
    known = [name for name in conditions.perturbations if name in embedding.index]
    if len(known) < FEWEST:
        raise ValueError(
            f"`embedding` has {len(known)} of the {len(conditions.perturbations)} measured perturbations, "
            f"but at least {FEWEST} are needed. Its index must be names of perturbations."
        )
    values = embedding.loc[[*known, *names]].to_numpy(dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("`embedding` has values that are not finite.")
    # of measured perturbations, so that a prediction does not depend on others that are new
    centre, scale = values[: len(known)].mean(axis=0), values[: len(known)].std(axis=0)
    # perturbations do not differ by rounding
    is_constant = scale <= SMALLEST_SPREAD * np.abs(values).max(axis=0)
    values = (values - centre) / np.where(is_constant, np.inf, scale)
    codes = [conditions.perturbations.index(name) for name in known]
    effects = estimate.posterior.mean[estimate.kinds == MAIN][codes]
    folds = KFold(min(N_FOLDS, len(known)), shuffle=True, random_state=0)
    x, new = values[: len(known)], values[len(known) :]
    errors = {
        penalty: effects - cross_val_predict(Ridge(penalty), x, effects, cv=folds)
        for penalty in PENALTIES
    }
    best = min(errors, key=lambda penalty: float(np.square(errors[penalty]).sum()))
    mean = Ridge(best).fit(x, effects).predict(new).sum(axis=0)
    return NewEffects(mean, len(names) * np.square(errors[best]).mean(axis=0))
