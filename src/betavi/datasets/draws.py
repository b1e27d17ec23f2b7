"""Checks and random draws that all simulators share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi import _blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.random import Generator

SPREAD_OF_LIBRARIES = 0.3
SHARE_OF_LOADINGS = 0.3


def check_rules(rules: Iterable[tuple[str, object, bool, str]]) -> None:
    """Raise a ValueError for the first value that is not valid.

    A rule is a parameter's name, its value, a flag of whether it is valid, and what is allowed.
    """
    for name, value, is_valid, allowed in rules:
        if not is_valid:
            raise ValueError(f"`{name}` must be {allowed}, not {value!r}.")


def block_slices(n_cells: int) -> Iterator[slice]:
    """Yield slices of cells, so that no dense matrix of all cells is made."""
    for start in range(0, n_cells, _blocks.SIMULATED_CELLS):
        yield slice(start, start + _blocks.SIMULATED_CELLS)


def draw_loadings(rng: Generator, n_genes: int, n_factors: int) -> np.ndarray:
    """Draw loadings of genes on factors, most of them 0."""
    chosen = rng.random((n_genes, n_factors)) < SHARE_OF_LOADINGS
    return chosen * rng.normal(size=(n_genes, n_factors))


def draw_theta(rng: Generator, n_genes: int) -> np.ndarray:
    """Draw an inverse dispersion for each gene."""
    return np.exp(rng.normal(1.0, 0.5, n_genes))


def draw_library_sizes(rng: Generator, n_cells: int, median: float) -> np.ndarray:
    """Draw expected counts per cell, log-normal around a median."""
    return median * np.exp(SPREAD_OF_LIBRARIES * rng.normal(size=n_cells))


def draw_negative_binomial(
    rng: Generator, mean: np.ndarray, theta: float | np.ndarray
) -> np.ndarray:
    """Draw counts ``(n_cells, n_genes)``. An infinite inverse dispersion gives Poisson counts."""
    theta = np.broadcast_to(theta, mean.shape[1:])
    is_finite = np.isfinite(theta)
    if is_finite.all():
        return rng.negative_binomial(theta, theta / (theta + mean))
    counts = rng.poisson(mean)
    theta, mean = theta[is_finite], mean[:, is_finite]
    counts[:, is_finite] = rng.negative_binomial(theta, theta / (theta + mean))
    return counts
