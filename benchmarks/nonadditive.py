"""Search for genes in which a pair of Norman 2019 departs from the sum of both perturbations.

The cells of each condition are halved at random, ten times. In the first half, the departure of a pair is
measured as the log2 fold change of the pair minus those of both perturbations. The 25 genes with the largest
departure, in standard errors, are to be found. No departure is significant at a false discovery rate of 0.1,
so most of these genes are noise, and a score cannot come close to 1. The methods read the second half:

- ``interactions`` and ``interactions, shrunken``: :meth:`betavi.EffectVI.interactions`, which has seen the pair;
- ``EffectVI, pairs left out``: its prediction minus the sum of the measured changes;
- ``measured departure``: the departure in the second half, without a model;
- ``no change``: a prediction of no change, whose departure is minus the sum of the changes. On the log2 scale,
  on that of log counts per ten thousand (Ahlmann-Eltze et al. 2025), and in standard errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse, stats
from sklearn.metrics import average_precision_score

from benchmarks.perturbed_cells import CONTROL, pairs_of
from benchmarks.screens import norman, set_up
from betavi.diagnostics.effects import inflation, sum_groups
from betavi.diagnostics.effects.baselines import log_profile

if TYPE_CHECKING:
    from anndata import AnnData

    from betavi import EffectVI

SEEDS, N_TRUE = range(10), 25
KEYS = {"perturbation_key": "condition"}


class Contrast(NamedTuple):
    """Sum of log2 shares with signs, its standard error, and the same sum of log profiles."""

    value: np.ndarray
    error: np.ndarray
    of_profiles: np.ndarray

    @property
    def z(self) -> np.ndarray:
        """Value in standard errors."""
        return self.value / self.error


def halves(adata: AnnData, seed: int) -> list[AnnData]:
    """Return two random halves of the cells of each condition."""
    rng, is_first = np.random.default_rng(seed), np.zeros(adata.n_obs, dtype=bool)
    for cells in adata.obs.groupby("condition", observed=True).indices.values():
        is_first[rng.permutation(cells)[::2]] = True
    return [adata[is_first].copy(), adata[~is_first].copy()]


class Measured:
    """Sums of counts of the conditions, and the variance of these counts."""

    def __init__(self, adata: AnnData) -> None:
        names, codes = np.unique(adata.obs["condition"].astype(str), return_inverse=True)
        sums = sum_groups([(sparse.csr_array(adata.X), codes)], len(names), adata.n_vars)
        self.counts = dict(zip(names, sums.counts, strict=True))
        self.inflation = inflation(sums)

    def contrast(self, signs: dict[str, int]) -> Contrast:
        """Return a contrast of conditions, from the sign of each."""
        value, variance, of_profiles = np.zeros((3, len(self.inflation)))
        for name, sign in signs.items():
            counts = self.counts[name] + 0.5
            value += sign * np.log2(counts / counts.sum())
            variance += sign**2 * self.inflation / counts / np.log(2) ** 2
            of_profiles += sign * log_profile(self.counts[name])
        return Contrast(value, np.sqrt(variance), of_profiles)

    def departure(self, pair: str) -> Contrast:
        """Return the change of a pair minus the sum of both changes."""
        one, two = pair.split("+")
        return self.contrast({pair: 1, one: -1, two: -1, CONTROL: 1})

    def sum_of_changes(self, pair: str) -> Contrast:
        """Return the sum of the changes of both perturbations."""
        one, two = pair.split("+")
        return self.contrast({one: 1, two: 1, CONTROL: -2})


def fitted(adata: AnnData) -> EffectVI:
    model = set_up(adata, KEYS)
    # the effects are estimated before the first epoch
    model.train(max_epochs=1, train_size=1.0, enable_progress_bar=False)
    return model


def scores_of(adata: AnnData, pairs: list[str]) -> dict[tuple[str, str], np.ndarray]:
    """Return the score of each gene, by pair and method."""
    measured, found = Measured(adata), {}
    genes, _ = fitted(adata).interactions()
    rest = fitted(adata[~adata.obs["condition"].isin(pairs)].copy())
    for pair in pairs:
        name = "+".join(sorted(pair.split("+")))
        own = genes[genes["pair"] == name].set_index("gene").loc[adata.var_names]
        total, departure = measured.sum_of_changes(pair), measured.departure(pair)
        left_out = rest.predict(pair).layers["lfc"][0] - total.value
        found |= {
            (pair, "interactions"): own["estimate"] / own["error"],
            (pair, "interactions, shrunken"): own["shrunken"],
            (pair, "EffectVI, pairs left out"): left_out,
            (pair, "measured departure, log2"): departure.value,
            (pair, "measured departure, standard errors"): departure.z,
            (pair, "no change, log2"): total.value,
            (pair, "no change, log counts per ten thousand"): total.of_profiles,
            (pair, "no change, standard errors"): total.z,
        }
    return {key: np.nan_to_num(np.abs(np.asarray(each))) for key, each in found.items()}


def nonadditive() -> None:
    """Print the area under the precision-recall curve of each method."""
    adata, _ = norman()
    pairs, rows, called = pairs_of(adata.obs["condition"].astype(str)), [], 0
    for seed in SEEDS:
        first, second = halves(adata, seed)
        truth = Measured(first)
        departures = {pair: np.abs(truth.departure(pair).z) for pair in pairs}
        for z in departures.values():
            called += int((stats.false_discovery_control(2 * stats.norm.sf(z)) < 0.1).sum())
        for (pair, method), score in scores_of(second, pairs).items():
            is_true = departures[pair] >= np.sort(departures[pair])[-N_TRUE]
            area = average_precision_score(is_true, score)
            rows.append({"method": method, "seed": seed, "area": area})
    table = pd.DataFrame(rows).pivot_table("area", "seed", "method", sort=False)
    ours = table["interactions"].to_numpy()[:, None]
    shown = table.mean().to_frame("area").assign(behind_interactions=(table < ours).sum())
    print(
        f"\nNon-additive genes of {len(pairs)} pairs, Norman: area under the precision-recall curve"
    )
    print(f"{called} significant departures. Random scores have {N_TRUE / adata.n_vars:.2f}")
    print(f"Behind interactions: in how many of {len(SEEDS)} splits the method is worse")
    print(shown.round(3).to_string(), flush=True)
