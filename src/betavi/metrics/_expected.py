"""Expected values of pairs of perturbations that do not interact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import lsqr

if TYPE_CHECKING:
    from collections.abc import Callable

PENALTY = 4.0  # squared coefficients count as much as four partners
UNPENALISED = 1e3
FEWEST_PARTNERS = 10


@dataclass(frozen=True)
class Scale:
    """A scale of values: Bliss' expected value, its gradient and the effect of a single."""

    bliss: Callable[..., Any]
    gradient: Callable[..., tuple[np.ndarray, ...]]
    effect: Callable[..., Any]


def _ones(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, ...]:
    one = np.ones_like(a * b * c)
    return one, one, -one


SCALES = {
    "viability": Scale(
        bliss=lambda a, b, c: a * b / c,
        gradient=lambda a, b, c: (b / c, a / c, -a * b / c**2),
        effect=lambda a, c: a / c - 1,
    ),
    "log": Scale(
        bliss=lambda a, b, c: a + b - c, gradient=_ones, effect=lambda a, c: a - c
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Bend:
    """Difference of pairs without interaction from Bliss' value, as a function of the singles.

    A quadratic function of both effects, and for each single an intercept and a slope over the
    partner's effect. These are shrunk towards 0.
    """

    scale: Scale
    coefficients: np.ndarray
    names: pd.Index
    unit: float

    def __call__(self, units: pd.DataFrame) -> np.ndarray:
        """Return the fitted differences of pairs, ``(n_units,)``."""
        return np.asarray(_terms(units, self.scale, self.names, self.unit) @ self.coefficients)


def fit_bend(units: pd.DataFrame, scale: Scale) -> Bend:
    """Fit the difference of observed and Bliss' values of pairs."""
    names = pd.Index(np.unique(np.concatenate(_single_names(units))))
    pairs = units[["first", "second"]].drop_duplicates()
    singles = pd.unique(pairs.to_numpy().ravel())
    n_partners = 2 * len(pairs) / len(singles)
    if n_partners < FEWEST_PARTNERS:
        raise ValueError(
            f"expectation='fitted' needs {FEWEST_PARTNERS} partners for each perturbation on "
            f"average, but there are {n_partners:.1f} for {len(singles)} perturbations. Pass "
            "expectation='bliss'."
        )
    effects = np.concatenate([scale.effect(units[x], units["c"]) for x in ("a", "b")])
    unit = float(np.sqrt(np.square(effects).mean())) or 1.0
    excess = units["observed"] - scale.bliss(units["a"], units["b"], units["c"])
    terms = _terms(units, scale, names, unit)
    found = lsqr(terms, excess.to_numpy(), damp=np.sqrt(PENALTY), iter_lim=1000)[0]
    return Bend(scale, found, names, unit)


def _single_names(units: pd.DataFrame) -> list[np.ndarray]:
    """Return the names of both singles of each unit, with their guides if labels name guides."""
    parts = []
    for part in ("first", "second"):
        guide = units[f"{part}_label"].where(units["by_part"], "")
        parts.append((units[part] + "\n" + guide).to_numpy())
    return parts


def _terms(units: pd.DataFrame, scale: Scale, names: pd.Index, unit: float) -> sparse.csr_matrix:
    a, b = (scale.effect(units[x], units["c"]).to_numpy() / unit for x in ("a", "b"))
    shared = UNPENALISED * np.column_stack([np.ones_like(a), a + b, a**2 + b**2, a * b])
    columns = np.concatenate([names.get_indexer(pd.Index(part)) for part in _single_names(units)])
    rows = np.tile(np.arange(len(units)), 2)
    shape = len(units), len(names)
    own = [
        sparse.csr_matrix((values, (rows, columns)), shape)
        for values in (np.ones(len(rows)), np.concatenate([b, a]))
    ]
    return sparse.hstack([sparse.csr_matrix(shared), *own]).tocsr()
