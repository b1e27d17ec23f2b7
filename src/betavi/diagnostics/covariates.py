"""Prediction of covariates from a latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDS = 3


def predicted_from(
    loc: np.ndarray, categorical: Mapping[str, np.ndarray], continuous: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Score linear predictions of each covariate from z by 3-fold cross-validation.

    Parameters
    ----------
    loc
        Latent positions, ``(n_cells, n_latent)``.
    categorical, continuous
        Values, ``(n_cells,)``, by name of the covariate. Categories with fewer than three cells and
        constant covariates are left out.

    Returns
    -------
    One row per covariate: ``score``, the balanced accuracy or the share of variance explained;
    ``guess``, the score without z; and ``measure``, the name of the score.

    Examples
    --------
    >>> loc = np.random.default_rng(0).normal(size=(90, 2))
    >>> table = predicted_from(loc, {"side": loc[:, 0] > 0}, {"age": loc[:, 1]})
    >>> table["score"].round().tolist(), table["guess"].tolist()
    ([1.0, 1.0], [0.5, 0.0])
    """
    rows = {}
    for name, codes in categorical.items():
        values, numbers = np.unique(codes, return_counts=True)
        common = np.isin(codes, values[numbers >= FOLDS])
        n_common = len(np.unique(codes[common]))
        if n_common > 1:
            classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
            scores = cross_val_score(
                classifier, loc[common], codes[common], cv=FOLDS, scoring="balanced_accuracy"
            )
            rows[name] = (scores.mean(), 1 / n_common, "balanced accuracy")
    for name, numbers in continuous.items():
        if np.ptp(numbers):
            folds = KFold(FOLDS, shuffle=True, random_state=0)
            scores = cross_val_score(LinearRegression(), loc, numbers, cv=folds, scoring="r2")
            rows[name] = (scores.mean(), 0.0, "variance explained")
    return pd.DataFrame.from_dict(rows, orient="index", columns=["score", "guess", "measure"])
