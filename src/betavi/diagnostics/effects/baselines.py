"""Simple predictions of a condition's profile, from the profiles of other conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from betavi.diagnostics.effects.scale_mixture import ScaleMixture

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = 1e4
"""Total of a profile, as is usual with scanpy."""

N_COMPONENTS, RIDGE = 10, 0.1
"""Sizes of the linear model of Ahlmann-Eltze et al. (2025), who used 10 components and 0.1."""

INFLATION = 1.5
"""Factor of the Poisson standard errors in the shrunken sum, given before any test on these data."""


Parts = Mapping[str, float | None]
"""Perturbations of a condition, with their doses. None without doses."""


class Screen(NamedTuple):
    """Counts of measured conditions.

    ``counts`` are sums over cells by condition, each ``(n_genes,)``. ``parts`` are the perturbations of
    each condition. ``control`` is the name of the control.
    """

    counts: Mapping[str, np.ndarray]
    parts: Mapping[str, Parts]
    control: str

    def profile(self, name: str) -> np.ndarray:
        """Return log(1 + counts per ten thousand) of a condition, ``(n_genes,)``."""
        return log_profile(self.counts[name])

    @property
    def perturbed(self) -> list[str]:
        """Names of all conditions but the control."""
        return [name for name in self.counts if name != self.control]

    def single(self, part: str, dose: float | None = None) -> str:
        """Return the condition with one perturbation, at the closest dose.

        Raise a KeyError if the perturbation was not measured alone.
        """
        names = [name for name in self.perturbed if list(self.parts[name]) == [part]]
        if not names:
            raise KeyError(part)
        return min(names, key=lambda name: _apart(self.parts[name][part], dose))

    def singles(self, parts: Parts) -> list[str]:
        """Return the conditions with one perturbation each, at the closest doses."""
        return [self.single(part, dose) for part, dose in sorted(parts.items())]

    def sharing(self, parts: Parts) -> list[str]:
        """Return the conditions that share a perturbation, at the closest dose."""
        found = set()
        for part, dose in parts.items():
            apart = {
                name: _apart(self.parts[name][part], dose)
                for name in self.perturbed
                if part in self.parts[name]
            }
            found |= {name for name in apart if apart[name] == min(apart.values())}
        return [name for name in self.perturbed if name in found]


def _apart(dose: float | None, other: float | None) -> float:
    """Return the distance of doses on a log scale, 0 without doses."""
    return 0.0 if dose is None or other is None else abs(float(np.log(dose / other)))


def example_screen() -> Screen:
    """Return a small screen with two perturbations, for examples."""
    counts = {"control": [10, 10, 80], "A": [30, 10, 60], "B": [10, 30, 60]}
    parts: dict[str, Parts] = {"control": {}, "A": {"A": None}, "B": {"B": None}}
    return Screen({name: np.array(each) for name, each in counts.items()}, parts, "control")


def log_profile(counts: np.ndarray) -> np.ndarray:
    """Return log(1 + counts per ten thousand), over the last axis."""
    totals = np.maximum(counts.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
    scaled: np.ndarray = np.log1p(TARGET * counts / totals)
    return scaled


def no_change(screen: Screen, _parts: Parts) -> np.ndarray:
    """Return the control's profile.

    Examples
    --------
    >>> no_change(example_screen(), {"A": None, "B": None}).round(1).tolist()
    [6.9, 6.9, 9.0]
    """
    return screen.profile(screen.control)


def mean_of_perturbed(screen: Screen, _parts: Parts) -> np.ndarray:
    """Return the mean of all perturbed conditions.

    Examples
    --------
    >>> mean_of_perturbed(example_screen(), {"A": None, "B": None}).round(1).tolist()
    [7.5, 7.5, 8.7]
    """
    return np.mean([screen.profile(name) for name in screen.perturbed], axis=0)


def matching_mean(screen: Screen, parts: Parts) -> np.ndarray:
    """Return the mean of the conditions that share a perturbation, at the closest dose.

    Examples
    --------
    >>> matching_mean(example_screen(), {"A": None, "B": None}).round(1).tolist()
    [7.5, 7.5, 8.7]
    """
    return np.mean([screen.profile(name) for name in screen.sharing(parts)], axis=0)


def additive(screen: Screen, parts: Parts) -> np.ndarray:
    """Return the control's profile plus the changes by the single perturbations.

    Examples
    --------
    >>> additive(example_screen(), {"A": None, "B": None}).round(1).tolist()
    [8.0, 8.0, 8.4]
    """
    control = screen.profile(screen.control)
    changes = [screen.profile(name) - control for name in screen.singles(parts)]
    return control + np.sum(changes, axis=0)


def shrunken_additive(screen: Screen, parts: Parts) -> np.ndarray:
    """Return the control's profile with shrunken log fold changes of the single perturbations.

    Each is compared with the control alone, gene by gene, with a prior fitted to its estimates.

    Examples
    --------
    >>> shrunken_additive(example_screen(), {"A": None, "B": None}).round(1).tolist()
    [7.3, 7.3, 8.9]
    """
    control = screen.counts[screen.control] + 0.5
    total = np.zeros(len(control))
    for name in screen.singles(parts):
        counts = screen.counts[name] + 0.5
        estimate = np.log(counts / counts.sum()) - np.log(control / control.sum())
        variance = INFLATION**2 * (1 / counts + 1 / control)
        prior = ScaleMixture.start(np.zeros(1, dtype=int))
        for _ in range(50):
            mean, _, sums = prior.shrunk(estimate[None], variance[None])
            prior = prior.updated(sums)
        total += mean[0]
    return log_profile(control * np.exp(total))


def nearest(screen: Screen, parts: Parts) -> np.ndarray:
    """Return the measured profile that is closest to the additive prediction.

    Examples
    --------
    >>> nearest(example_screen(), {"A": None, "B": None}).round(1).tolist()
    [8.0, 6.9, 8.7]
    """
    wanted = additive(screen, parts)
    profiles = np.stack([screen.profile(name) for name in screen.perturbed])
    closest: np.ndarray = profiles[np.linalg.norm(profiles - wanted, axis=1).argmin()]
    return closest


def linear(screen: Screen, parts: Parts) -> np.ndarray:
    """Return the prediction of a ridge regression on embeddings of perturbations.

    The embeddings are principal components of the changes by single perturbations, at each dose. A
    combination has the sum of the embeddings of its perturbations, at the closest doses.

    Examples
    --------
    >>> linear(example_screen(), {"A": None, "B": None}).round(1).tolist()
    [7.5, 7.5, 8.7]
    """
    control = screen.profile(screen.control)
    alone = [name for name in screen.perturbed if len(screen.parts[name]) == 1]
    known = sorted(alone, key=lambda name: next(iter(screen.parts[name].items())))
    changes = np.stack([screen.profile(name) - control for name in known])
    n_components = min(N_COMPONENTS, *changes.shape)
    embedding = dict(
        zip(known, PCA(n_components, random_state=0).fit_transform(changes), strict=True)
    )
    measured = {part for name in known for part in screen.parts[name]}
    names = [name for name in screen.perturbed if screen.parts[name].keys() <= measured]

    def embedded(each: Parts) -> np.ndarray:
        return np.sum([embedding[name] for name in screen.singles(each)], axis=0)

    model = Ridge(RIDGE).fit(
        np.stack([embedded(screen.parts[name]) for name in names]),
        np.stack([screen.profile(name) - control for name in names]),
    )
    change: np.ndarray = model.predict(embedded(parts)[None])[0]
    return control + change


COMBINATION_BASELINES: dict[str, Callable[[Screen, Parts], np.ndarray]] = {
    "no change": no_change,
    "mean of perturbed": mean_of_perturbed,
    "matching mean": matching_mean,
    "additive": additive,
    "shrunken additive": shrunken_additive,
    "nearest": nearest,
    "linear": linear,
}
"""Predictions of a combination, by name."""
