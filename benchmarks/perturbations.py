"""Prediction of combinations, contexts and doses that are left out, beside simple baselines.

``python -m benchmarks.perturbations [part ...]``. Parts, by default all:

- ``combinations``: each combination of datlinger and of Norman 2019 is left out in turn. The scores use
  the 1,000 genes with most counts.
- ``contexts``: the stimulation of each cell type of kang_muscat, and each perturbation in each cell line of
  mcfaline23. The bandwidth between contexts was chosen on kang_muscat.
- ``doses``: each dose of macseq but none of a control, and half-effective doses.
- ``energy``: cells of left-out pairs of Norman and datlinger, see :mod:`benchmarks.perturbed_cells`.
- ``nonadditive``: genes of Norman in which pairs interact, see :mod:`benchmarks.nonadditive`.
- ``bulk``: the interaction of two treatments in 16 bulk samples, see :mod:`benchmarks.bulk`.
- ``unseen``: knock-outs of datlinger from coordinates of their genes, see :mod:`benchmarks.unseen`.
- ``simulated_doses``: half-effective doses with known truth, three seeds.
- ``simulated_pairs``: interactions with known truth, and coverage of pairs that are left out, 12 seeds.
- ``permuted``: p-values of real cells with random labels, see :mod:`benchmarks.permuted`.
- ``state``: information of z about the condition, in nats, and seconds of training.

The estimate of the effects was developed on both sets of combinations: the inflation of counts by their
cells, the prior, and effects without the state of the cells were each compared with alternatives there. What
the encoder reads was chosen on kang, kang_muscat and norman. Only mcfaline, macseq, the bulk samples
and the simulations had no part in a choice. It takes about 40 minutes on one core.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.bulk import bulk
from benchmarks.nonadditive import nonadditive
from benchmarks.peers import processor, quietly
from benchmarks.permuted import permuted
from benchmarks.perturbed_cells import energy
from benchmarks.screens import datlinger, kang, kang_muscat, macseq, mcfaline, norman, set_up
from benchmarks.unseen import unseen
from betavi import EffectVI
from betavi.datasets import EffectDistribution, simulate_perturbations

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

SEEDS, MANY_SEEDS = (0, 1, 2), range(12)
DOSES = (0.01, 0.1, 0.3, 1, 3, 10, 100)
DESIGNS: dict[str, dict[str, Any]] = {
    "seven doses, 20,000 cells": {},
    "three doses": {"doses": (0.1, 1, 10)},
    "5,000 cells": {"n_cells": 5000},
    "three replicates with noise": {"n_cells": 10_000, "n_replicates": 3, "replicate_sd": 0.2},
    "weak effects": {"n_cells": 10_000, "effects": EffectDistribution(effect_sd=0.3)},
}
"""Screens with doses. Their half-effective doses are between the lowest and the highest dose."""


def left_out(read: Callable[[], tuple[AnnData, dict[str, Any]]], split: str) -> None:
    """Print the scores of a split, and the R² of each condition for contexts."""
    start = time.perf_counter()
    table = set_up(*read()).evaluate(split, by_condition=True, show_progress=False)
    conditions = table.index.unique("condition")
    means = table.groupby("method", sort=False).mean()
    print(f"\n{read.__name__}, {len(conditions)} left out, {time.perf_counter() - start:.0f} s")
    print(means.round(3).to_string())
    if split == "context" and len(conditions) < 10:
        print(
            f"\nR²\n{table.reset_index().pivot_table('r2', 'method', 'condition', sort=False).round(3).to_string()}",
            flush=True,
        )


def dose_curves(seed: int, design: dict[str, Any]) -> dict[str, float]:
    """Return how often half-effective doses are within a factor of 1.5, and inside their interval."""
    sizes = {"n_cells": 20_000, "n_genes": 400, "n_perturbations": 20, "library_size": 2000.0}
    adata = simulate_perturbations(**sizes | {"doses": DOSES} | design, seed=seed)
    EffectVI.setup_anndata(
        adata, perturbation_key="perturbation", dose_key="dose", replicate_key="replicate"
    )
    model = EffectVI(adata)
    model.train(max_epochs=1, enable_progress_bar=False)
    found = model.dose_response()
    truth = adata.uns["truth"]["dose_curves"]["ec50"].loc[found.index]
    return {
        "EC50 within 1.5": (np.abs(np.log(found["ec50"] / truth)) < np.log(1.5)).mean(),
        "coverage": ((found["lower"] < truth) & (truth < found["upper"])).mean(),
        "median ratio of ends": (found["upper"] / found["lower"]).median(),
        "determined": found["is_determined"].mean(),
    }


def pairs_of_seed(seed: int, share: float) -> dict[str, float]:
    """Return p-values below 0.05 without an interaction, power and false calls, and coverage."""
    effects = EffectDistribution(share_interacting=share)
    adata = simulate_perturbations(
        n_cells=6000, n_perturbations=8, n_combinations=6, effects=effects, n_replicates=4,
        replicate_sd=0.2, library_size=2000.0, seed=seed,
    )  # fmt: skip
    EffectVI.setup_anndata(adata, perturbation_key="perturbation", replicate_key="replicate")
    model = EffectVI(adata)
    model.train(max_epochs=1, enable_progress_bar=False)
    genes, _ = model.interactions()
    truth = adata.uns["truth"]["interactions"]
    truth = truth.rename(columns=lambda name: "+".join(sorted(name.split("+"))))
    rows, columns = (
        truth.index.get_indexer(genes["gene"]),
        truth.columns.get_indexer(genes["pair"]),
    )
    real = truth.to_numpy()[rows, columns] != 0
    # of either perturbation of the pair
    is_affected = adata.uns["truth"]["effects"] != 0
    affected = {name: is_affected[name.split("+")].any(axis=1) for name in truth}
    has_effect = np.array(
        [affected[pair][gene] for pair, gene in zip(genes["pair"], genes["gene"], strict=True)]
    )
    small = genes["p_value"].to_numpy() < 0.05
    called = genes["fdr"].to_numpy() < 0.1
    coverage = model.evaluate(show_progress=False).loc["EffectVI", "coverage"]
    return {
        "p < 0.05": small[~real].mean(),
        "p < 0.05, affected genes": small[~real & has_effect].mean(),
        "power": called[real].mean() if real.any() else np.nan,
        "calls": called.sum(),
        "false calls": (called & ~real).sum(),
        "coverage": coverage,
    }


def combinations() -> None:
    for read in (datlinger, norman):
        left_out(read, "combination")


def contexts() -> None:
    for read in (kang_muscat, mcfaline):
        left_out(read, "context")


def doses() -> None:
    left_out(macseq, "dose")
    half_effective()


def half_effective() -> None:
    """Print half-effective doses of macseq, whose true values are not known."""
    model = set_up(*macseq())
    model.train(max_epochs=1, train_size=1.0, enable_progress_bar=False)
    found = model.dose_response()
    print(f"\nHalf-effective doses, {found['is_determined'].sum()} of {len(found)} determined")
    print(found.round(3).to_string(), flush=True)


def simulated_doses() -> None:
    rows = {
        name: pd.DataFrame([dose_curves(seed, design) for seed in SEEDS]).mean()
        for name, design in DESIGNS.items()
    }
    print(
        f"\nSimulated doses, mean of three seeds\n{pd.DataFrame(rows).T.round(3).to_string()}",
        flush=True,
    )


def simulated_pairs() -> None:
    for share in (0.0, 0.1):
        pairs = pd.DataFrame([pairs_of_seed(seed, share) for seed in MANY_SEEDS])
        print(
            f"\nSimulated pairs, mean of 12 seeds, {share:.0%} of the affected genes interact\n"
            f"{pairs.mean().round(3).to_string()}",
            flush=True,
        )


def state() -> None:
    rows = {}
    for read in (norman, datlinger, kang, kang_muscat, mcfaline):
        model = set_up(*read())
        start = time.perf_counter()
        model.train(enable_progress_bar=False)
        seconds = time.perf_counter() - start
        found = model.state_information()
        rows[read.__name__] = {
            "nats": found["nats"].mean(), "largest": found["nats"].max(),
            "depends": found["depends"].sum(), "contexts": len(found), "seconds": seconds,
        }  # fmt: skip
    print(f"\nInformation of z about the condition\n{pd.DataFrame(rows).T.round(3).to_string()}")


PARTS: dict[str, Callable[[], None]] = {
    part.__name__: part
    for part in (
        combinations, contexts, doses, energy, nonadditive, bulk, unseen, simulated_doses,
        simulated_pairs, permuted, state,
    )
}  # fmt: skip


def main(*words: str) -> None:
    quietly(1)
    warnings.filterwarnings("ignore")
    print(f"{processor()}, one thread")
    for word in words or PARTS:
        PARTS[word]()


if __name__ == "__main__":
    main(*sys.argv[1:])
