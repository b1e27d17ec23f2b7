"""Interactions of real cells with random labels. The labels have no effects.

Unstimulated cells of Kang and of Datlinger get one of the labels ``control``, ``A``, ``B`` and ``A+B`` at random. The
p-values of the interaction should be uniform.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks.screens import datlinger, kang, set_up

if TYPE_CHECKING:
    from anndata import AnnData

SEEDS, LABELS = range(5), ("control", "A", "B", "A+B")


def unstimulated() -> dict[str, AnnData]:
    """Return the cells of each data set that had no stimulus."""
    first, second = kang()[0], datlinger()[0]
    is_stimulated = second.obs["condition"].astype(str).str.contains("TCR", regex=False)
    return {
        "Kang": first[first.obs["stim"] == "ctrl"].copy(),
        "Datlinger": second[~is_stimulated.to_numpy()].copy(),
    }


def small_p_values(adata: AnnData, seed: int) -> dict[str, float]:
    """Return the shares of small p-values of all genes, and the number of called genes."""
    made = adata.copy()
    made.obs["label"] = np.random.default_rng(seed).choice(LABELS, size=made.n_obs)
    model = set_up(made, {"perturbation_key": "label"})
    model.train(max_epochs=1, train_size=1.0, enable_progress_bar=False)
    found = model.interactions()[0]
    p_value = found["p_value"].dropna()
    shares = {f"p < {level}": (p_value < level).mean() for level in (0.05, 0.01, 0.001)}
    return {**shares, "called": (found["fdr"] < 0.1).sum()}


def permuted() -> None:
    """Print the shares of small p-values, one row for each seed."""
    for name, adata in unstimulated().items():
        table = pd.DataFrame([small_p_values(adata, seed) for seed in SEEDS])
        print(f"\nPermuted labels, {name}\n{table.round(3).to_string()}", flush=True)
