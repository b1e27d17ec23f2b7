"""Distance between predicted and measured cells of pairs that were left out.

All pairs whose perturbations were measured alone are left out at once. EffectVI predicts counts of control
cells as if they had the pair: states from the posterior, counts from the likelihood. The other methods also
return cells. The result is the energy distance to one half of the measured cells of the pair, in 20
principal components of log counts that were fitted to the training cells. The other half is the ceiling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.decomposition import PCA

from benchmarks.screens import datlinger, norman, set_up
from betavi.data import COUNTS
from betavi.metrics import energy_distance
from betavi.model.effects.draws import condition_in
from betavi.module.effects import DESIGN

if TYPE_CHECKING:
    from anndata import AnnData

    from betavi import EffectVI

N_COMPONENTS, CONTROL = 20, "control"


def pairs_of(names: pd.Series) -> list[str]:
    """Return the pairs whose perturbations were measured alone."""
    measured = set(names)
    return sorted(name for name in measured if "+" in name and set(name.split("+")) <= measured)


def dense(adata: AnnData) -> np.ndarray:
    return np.asarray(sparse.csr_matrix(adata.X).todense(), dtype=float)


@torch.inference_mode()
def counterfactual_counts(model: EffectVI, pair: str, cells: np.ndarray) -> np.ndarray:
    """Return counts of cells as if they had the pair, drawn from states and likelihood."""
    parts = model.conditions.codes_of(pair.split("+"))
    row = torch.as_tensor(condition_in(model.module.stored_estimate(), parts, None, 0).row).float()
    with model.seeded(0):
        (tensors,) = model.minibatches(model.adata, cells, len(cells))
        inferred = model.infer(tensors)
        log_size = model.module.log_sizes(tensors, inferred, COUNTS)
        design = {DESIGN: row.expand(len(cells), -1)}
        px = model.decode(inferred["z"], tensors | design, COUNTS, log_size)
        counts: np.ndarray = px.sample().double().numpy()
    return counts


def fold_changes(training: dict[str, np.ndarray], pair: str) -> np.ndarray:
    """Return the product of the fold changes of both perturbations, ``(n_genes,)``."""
    sums = {name: training[name].sum(axis=0) + 0.5 for name in (CONTROL, *pair.split("+"))}
    shares = {name: counts / counts.sum() for name, counts in sums.items()}
    changes = [shares[part] / shares[CONTROL] for part in pair.split("+")]
    return np.prod(changes, axis=0)


def predictions(
    model: EffectVI, training: dict[str, np.ndarray], pair: str, cells: np.ndarray
) -> dict[str, np.ndarray]:
    """Return predicted cells of a pair, by method."""
    control = training[CONTROL]
    predicted = 2 ** model.predict(pair).layers["lfc"][0].astype(float)
    parts = np.concatenate([training[part] for part in pair.split("+")])
    perturbed = [each for name, each in training.items() if name != CONTROL]
    return {
        "EffectVI": counterfactual_counts(model, pair, cells),
        "control cells, changes of EffectVI": control * predicted,
        "control cells, sum of changes": control * fold_changes(training, pair),
        "no change": control,
        "cells of both perturbations": parts,
        "cells of all perturbations": np.concatenate(perturbed),
    }


def distances(read: Any) -> pd.DataFrame:
    """Return the energy distances of all methods, one row for each pair."""
    adata, keys = read()
    names = adata.obs["condition"].astype(str)
    pairs = pairs_of(names)
    rest = adata[~names.isin(pairs)].copy()
    model = set_up(rest, keys)
    model.train(enable_progress_bar=False)
    conditions = rest.obs["condition"].astype(str).to_numpy()
    training = {name: dense(rest[conditions == name]) for name in np.unique(conditions)}
    everything = dense(rest)
    size = np.median(everything.sum(axis=1))

    def logs(counts: np.ndarray) -> np.ndarray:
        return np.log1p(size * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9))

    space = PCA(N_COMPONENTS, random_state=0).fit(logs(everything))
    rng, rows = np.random.default_rng(0), {}
    cells = np.flatnonzero(conditions == CONTROL)
    for pair in pairs:
        measured = rng.permutation(dense(adata[(names == pair).to_numpy()]))
        target, other = np.array_split(measured, 2)
        found = predictions(model, training, pair, cells) | {"measured cells": other}
        rows[pair] = {
            name: energy_distance(space.transform(logs(each)), space.transform(logs(target)))
            for name, each in found.items()
        }
    return pd.DataFrame(rows).T


def energy() -> None:
    """Print the mean energy distance of each method, and the number of pairs in which it is the closest."""
    for read in (norman, datlinger):
        table = distances(read)
        methods = table.columns.drop("measured cells")
        first = table[methods].idxmin(axis=1).value_counts()
        means = pd.DataFrame({"energy distance": table.mean(), "closest": first}).loc[table.columns]
        print(f"\nCells of left-out pairs, {read.__name__}, {len(table)} pairs")
        print(means.fillna(0).round(3).to_string(), flush=True)
