"""Simple predictions of a condition's profile, from the profiles of other conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from betavi.diagnostics.effects.scale_mixture import ScaleMixture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TARGET = 1e4
"""Total of a profile, as is usual with scanpy."""

N_COMPONENTS, RIDGE = 10, 0.1
"""Sizes of the linear model of Ahlmann-Eltze et al. (2025), who used 10 components and 0.1."""

INFLATION = 1.5
"""Factor of the Poisson standard errors in the shrunken sum, given before any test on these data."""


class Screen(NamedTuple):
    """Counts of measured conditions.

    ``counts`` are sums over cells by condition, each ``(n_genes,)``. ``parts`` are the perturbations of
    each condition. ``control`` is the name of the control.
    """

    counts: Mapping[str, np.ndarray]
    parts: Mapping[str, frozenset[str]]
    control: str

    def profile(self, name: str) -> np.ndarray:
        """Return log(1 + counts per ten thousand) of a condition, ``(n_genes,)``."""
        return log_profile(self.counts[name])

    @property
    def perturbed(self) -> list[str]:
        """Names of all conditions but the control."""
        return [name for name in self.counts if name != self.control]

    def single(self, part: str) -> str:
        """Return the condition with one perturbation. Raise a KeyError if it was not measured."""
        for name, parts in self.parts.items():
            if parts == {part} and name in self.counts:
                return name
        raise KeyError(part)


def example_screen() -> Screen:
    """Return a small screen with two perturbations, for examples."""
    counts = {"control": [10, 10, 80], "A": [30, 10, 60], "B": [10, 30, 60]}
    parts = {"control": frozenset(""), "A": frozenset("A"), "B": frozenset("B")}
    return Screen({name: np.array(each) for name, each in counts.items()}, parts, "control")


def log_profile(counts: np.ndarray) -> np.ndarray:
    """Return log(1 + counts per ten thousand), over the last axis."""
    totals = np.maximum(counts.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
    scaled: np.ndarray = np.log1p(TARGET * counts / totals)
    return scaled


def no_change(screen: Screen, _parts: frozenset[str]) -> np.ndarray:
    """Return the control's profile.

    Examples
    --------
    >>> no_change(example_screen(), frozenset("AB")).round(1).tolist()
    [6.9, 6.9, 9.0]
    """
    return screen.profile(screen.control)


def mean_of_perturbed(screen: Screen, _parts: frozenset[str]) -> np.ndarray:
    """Return the mean of all perturbed conditions.

    Examples
    --------
    >>> mean_of_perturbed(example_screen(), frozenset("AB")).round(1).tolist()
    [7.5, 7.5, 8.7]
    """
    return np.mean([screen.profile(name) for name in screen.perturbed], axis=0)


def matching_mean(screen: Screen, parts: frozenset[str]) -> np.ndarray:
    """Return the mean of the conditions that share a perturbation.

    Examples
    --------
    >>> matching_mean(example_screen(), frozenset("AB")).round(1).tolist()
    [7.5, 7.5, 8.7]
    """
    names = [name for name in screen.perturbed if screen.parts[name] & parts]
    return np.mean([screen.profile(name) for name in names], axis=0)


def additive(screen: Screen, parts: frozenset[str]) -> np.ndarray:
    """Return the control's profile plus the changes by the single perturbations.

    Examples
    --------
    >>> additive(example_screen(), frozenset("AB")).round(1).tolist()
    [8.0, 8.0, 8.4]
    """
    control = screen.profile(screen.control)
    changes = [screen.profile(screen.single(part)) - control for part in sorted(parts)]
    return control + np.sum(changes, axis=0)


def shrunken_additive(screen: Screen, parts: frozenset[str]) -> np.ndarray:
    """Return the control's profile with shrunken log fold changes of the single perturbations.

    Each is compared with the control alone, gene by gene, with a prior fitted to its estimates.

    Examples
    --------
    >>> shrunken_additive(example_screen(), frozenset("AB")).round(1).tolist()
    [7.3, 7.3, 8.9]
    """
    control = screen.counts[screen.control] + 0.5
    total = np.zeros(len(control))
    for part in sorted(parts):
        counts = screen.counts[screen.single(part)] + 0.5
        estimate = np.log(counts / counts.sum()) - np.log(control / control.sum())
        variance = INFLATION**2 * (1 / counts + 1 / control)
        prior = ScaleMixture.start(np.zeros(1, dtype=int))
        for _ in range(50):
            mean, _, sums = prior.shrunk(estimate[None], variance[None])
            prior = prior.updated(sums)
        total += mean[0]
    return log_profile(control * np.exp(total))


def nearest(screen: Screen, parts: frozenset[str]) -> np.ndarray:
    """Return the measured profile that is closest to the additive prediction.

    Examples
    --------
    >>> nearest(example_screen(), frozenset("AB")).round(1).tolist()
    [8.0, 6.9, 8.7]
    """
    wanted = additive(screen, parts)
    profiles = np.stack([screen.profile(name) for name in screen.perturbed])
    closest: np.ndarray = profiles[np.linalg.norm(profiles - wanted, axis=1).argmin()]
    return closest


def linear(screen: Screen, parts: frozenset[str]) -> np.ndarray:
    """Return the prediction of a ridge regression on embeddings of perturbations.

    The embeddings are principal components of the changes by single perturbations. A combination has
    the sum of its perturbations' embeddings.

    Examples
    --------
    >>> linear(example_screen(), frozenset("AB")).round(1).tolist()
    [7.5, 7.5, 8.7]
    """
    control = screen.profile(screen.control)
    singles = sorted({part for name in screen.perturbed for part in screen.parts[name]} | parts)
    known = [part for part in singles if _has_single(screen, part)]
    changes = np.stack([screen.profile(screen.single(part)) - control for part in known])
    n_components = min(N_COMPONENTS, *changes.shape)
    embedding = dict(
        zip(known, PCA(n_components, random_state=0).fit_transform(changes), strict=True)
    )
    names = [name for name in screen.perturbed if screen.parts[name] <= embedding.keys()]

    def embedded(each: frozenset[str]) -> np.ndarray:
        return np.sum([embedding[part] for part in each], axis=0)

    model = Ridge(RIDGE).fit(
        np.stack([embedded(screen.parts[name]) for name in names]),
        np.stack([screen.profile(name) - control for name in names]),
    )
    change: np.ndarray = model.predict(embedded(parts)[None])[0]
    return control + change


def _has_single(screen: Screen, part: str) -> bool:
    return any(parts == {part} for name, parts in screen.parts.items() if name in screen.counts)


COMBINATION_BASELINES: dict[str, Callable[[Screen, frozenset[str]], np.ndarray]] = {
    "no change": no_change,
    "mean of perturbed": mean_of_perturbed,
    "matching mean": matching_mean,
    "additive": additive,
    "shrunken additive": shrunken_additive,
    "nearest": nearest,
    "linear": linear,
}
"""Predictions of a combination, by name."""
