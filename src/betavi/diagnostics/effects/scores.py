"""Scores of predicted profiles of perturbed cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from collections.abc import Sequence

N_TOP = 50
"""Number of genes with the largest changes, for signs and recall."""


def perturbation_scores(
    predicted: np.ndarray,
    observed: np.ndarray,
    control: np.ndarray,
    centroid: np.ndarray,
    significant: np.ndarray | None = None,
    conditions: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Score predicted profiles of conditions beside the observed profiles.

    Profiles are log(1 + counts per ten thousand), or another scale on which changes are differences.

    Parameters
    ----------
    predicted, observed
        Profiles of the conditions, ``(n_conditions, n_genes)``.
    control
        Profile of the control, ``(n_genes,)``, or that of each condition, ``(n_conditions, n_genes)``.
    centroid
        Mean profile of the other perturbed conditions, of the same shape as ``control``.
    significant
        Mask of the genes that change significantly in each condition, ``(n_conditions, n_genes)``. By
        default, the 50 genes with the largest changes.
    conditions
        Names of the conditions.

    Returns
    -------
    A table with one row for each condition:

    - ``l2``, Euclidean distance to the observed profile;
    - ``r2``, share of the squared change from the control that the prediction explains. It is 0 for no
      change, and negative for a prediction that is worse;
    - ``r_control`` and ``r_centroid``, Pearson correlations of predicted and observed change from the
      control, and from the centroid. All predictions share the noise of a control with few cells,
      which raises ``r_control``;
    - ``signs``, share of the significant genes whose change has the right sign;
    - ``recall``, share of the significant genes among as many genes with the largest predicted changes;
    - ``rank``, share of the other observed profiles that are farther from the prediction than its own
      condition: 1 is best, and 0.5 is chance.

    Raises
    ------
    ValueError
        If shapes differ, or a value is not finite.

    References
    ----------
    Ahlmann-Eltze et al. (2025), Deep-learning-based gene perturbation effect prediction does not yet
    outperform simple linear baselines. Viñas Torné et al. (2025), Systema.

    Examples
    --------
    >>> observed = np.array([[1.0, 2, 0], [0, 1, 3]])
    >>> scores = perturbation_scores(observed, observed, np.zeros(3), observed.mean(axis=0))
    >>> scores[["l2", "r_control", "rank"]].mean().tolist()
    [0.0, 1.0, 1.0]
    """
    predicted, observed = np.atleast_2d(predicted), np.atleast_2d(observed)
    values = {
        "predicted": predicted,
        "observed": observed,
        "control": control,
        "centroid": centroid,
    }
    _check(values, observed.shape)
    if significant is not None and significant.shape != observed.shape:
        raise ValueError(
            f"`significant` has the shape {significant.shape}, but `observed` has {observed.shape}."
        )
    change, truth = predicted - control, observed - control
    squares = np.square(truth).sum(axis=1)
    errors = np.square(predicted - observed).sum(axis=1)
    chosen = _largest(truth) if significant is None else significant
    return pd.DataFrame(
        {
            "l2": np.sqrt(errors),
            "r2": 1 - errors / np.where(squares > 0, squares, np.nan),
            "r_control": _pearson(change, truth),
            "r_centroid": _pearson(predicted - centroid, observed - centroid),
            "signs": _mean_where(np.sign(change) == np.sign(truth), chosen),
            "recall": _recall(change, chosen),
            "rank": _rank(predicted, observed),
        },
        index=None if conditions is None else list(conditions),
    )


def _check(values: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    """Raise a ValueError if a profile has another shape, or a value that is not finite."""
    for name, profile in values.items():
        if profile.shape not in (shape, shape[1:]):
            raise ValueError(f"`{name}` has the shape {profile.shape}, but `observed` has {shape}.")
        if not np.isfinite(profile).all():
            raise ValueError(
                f"`{name}` has values that are not finite. Check for conditions without counts."
            )


def _largest(truth: np.ndarray) -> np.ndarray:
    """Return a mask of the genes with the largest changes in each condition."""
    order = np.abs(truth).argsort(axis=1)[:, ::-1]
    mask = np.zeros(truth.shape, dtype=bool)
    np.put_along_axis(mask, order[:, :N_TOP], True, axis=1)
    return mask


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    size = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    # a constant prediction has no correlation, apart from rounding
    found: np.ndarray = (a * b).sum(axis=1) / np.where(size > 1e-9, size, np.nan)
    return found


def _mean_where(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    n_chosen = mask.sum(axis=1)
    found: np.ndarray = (values & mask).sum(axis=1) / np.where(n_chosen > 0, n_chosen, np.nan)
    return found


def _recall(change: np.ndarray, significant: np.ndarray) -> np.ndarray:
    """Return the share of significant genes among equally many genes with the largest changes."""
    size = np.abs(change)
    size = np.where(np.ptp(size, axis=1, keepdims=True) > 0, size, np.nan)
    place = (-size).argsort(axis=1).argsort(axis=1)
    chosen = place < significant.sum(axis=1, keepdims=True)
    found = _mean_where(chosen, significant)
    found[np.isnan(size).any(axis=1)] = np.nan
    return found


def _rank(predicted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return the share of the other conditions that are farther away than the right one."""
    if len(observed) < 2:
        return np.full(len(observed), np.nan)
    distances = cdist(predicted, observed)
    own = distances.diagonal()[:, None]
    farther = (distances > own).sum(axis=1) + 0.5 * ((distances == own).sum(axis=1) - 1)
    found: np.ndarray = farther / (len(observed) - 1)
    return found
