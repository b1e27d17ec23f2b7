"""Noise between replicates of a condition, beyond the noise of their cells."""

from __future__ import annotations

import numpy as np


def replicate_noise(
    residual: np.ndarray, information: np.ndarray, member: np.ndarray, n_lost: int = 0
) -> np.ndarray:
    """Return the variance of log rates between replicates, ``(n_features,)``.

    The variance of each feature is estimated by the method of moments, and shrunk towards that of all
    features. Their standard deviation around it is assumed to be as large as the variance itself.

    Parameters
    ----------
    residual
        Residuals of the log rates of groups of cells, ``(n_groups, n_features)``.
    information
        Inverse variances of the residuals due to the cells, ``(n_groups, n_features)``.
    member
        Code of the condition of each group, ``(n_groups,)``. Groups with one code are replicates.
    n_lost
        Degrees of freedom that other base levels take.

    References
    ----------
    DerSimonian & Laird (1986), Meta-analysis in clinical trials.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = replicate_noise(rng.normal(0, 0.5, (40, 200)), np.full((40, 200), 100.0), np.arange(40) // 2)
    >>> float(noise.mean().round(2))
    0.24
    """
    n_codes = member.max() + 1
    sums, squares, crossed, values = (np.zeros((n_codes, residual.shape[1])) for _ in range(4))
    for total, added in (
        (sums, information),
        (squares, information**2),
        (crossed, information * residual),
        (values, information * residual**2),
    ):
        np.add.at(total, member, added)
    freedom = len(member) - n_codes - n_lost
    if freedom <= 0:
        return np.zeros(residual.shape[1])
    safe = np.maximum(sums, np.finfo(float).tiny)
    excess = (values - crossed**2 / safe).sum(axis=0) - freedom
    slope = np.maximum((sums - squares / safe).sum(axis=0), np.finfo(float).tiny)
    common = max(excess.sum() / slope.sum(), 0.0)
    # a mean square has twice its squared expectation, over the degrees of freedom, as variance
    signal = slope * common
    trust = signal**2 / (signal**2 + 2 * (freedom + signal) ** 2 / freedom)
    own = np.maximum(excess / slope, 0.0)
    return trust * own + (1 - trust) * common
