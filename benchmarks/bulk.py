"""Interaction of oxygen and a drug in bulk samples, by EffectVI and by a linear model.

A 2 x 2 with four experiments, 16 samples in all, and 14,612 genes with counts. EffectVI reads samples as
cells. Only its effects are used: 16 samples cannot train a network. The linear model reads log counts per
million, with moderated t tests (Smyth 2004). Both contain the experiments. Three comparisons:

- all samples: agreement of estimates and calls;
- genes that are called in two experiments, and the sign of the linear model's estimate in the other two;
- samples without an interaction: the additive fit, and residuals in random order. P-values should be uniform.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from benchmarks.perturbed_cells import dense
from benchmarks.screens import hypoxia, set_up
from betavi.model.effects.interactions import LARGEST_ERROR

if TYPE_CHECKING:
    from anndata import AnnData

FDR, SEEDS = 0.1, (0, 1, 2)
KEYS = {
    "perturbation_key": "condition", "replicate_key": "experiment", "batch_key": "experiment",
}  # fmt: skip


def by_effects(adata: AnnData) -> pd.DataFrame:
    """Return the interaction of each gene, by EffectVI."""
    model = set_up(adata.copy(), KEYS)
    model.train(max_epochs=1, train_size=1.0, enable_progress_bar=False)
    return model.interactions()[0].set_index("gene")


def design_of(adata: AnnData) -> np.ndarray:
    """Return constant, oxygen, drug, their product and experiments, ``(n_samples, n_columns)``."""
    parts = adata.obs["condition"].str.get_dummies("+")[["hypoxia", "BAY"]].to_numpy(float)
    experiments = pd.get_dummies(adata.obs["experiment"].astype(str), drop_first=True)
    return np.column_stack(
        [np.ones(adata.n_obs), parts, parts.prod(axis=1), experiments.to_numpy(float)]
    )


def log_cpm(adata: AnnData) -> np.ndarray:
    counts = dense(adata)
    cpm: np.ndarray = np.log2((counts + 0.5) / (counts.sum(axis=1, keepdims=True) + 1) * 1e6)
    return cpm


def moderated(variance: np.ndarray, freedom: int) -> tuple[np.ndarray, float]:
    """Return variances that are shrunk to a common value, and their degrees of freedom."""
    logs = np.log(variance) - digamma(freedom / 2) + np.log(freedom / 2)
    excess = logs.var(ddof=1) - polygamma(1, freedom / 2)
    prior = 2 * brentq(lambda half: polygamma(1, half) - excess, 1e-3, 1e6)
    common = np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2))
    return (prior * common + freedom * variance) / (prior + freedom), prior + freedom


def by_linear_model(adata: AnnData) -> pd.DataFrame:
    """Return the interaction of each gene, by a linear model of log counts per million."""
    logs, design = log_cpm(adata), design_of(adata)
    estimates = np.linalg.lstsq(design, logs, rcond=None)[0]
    freedom = len(design) - design.shape[1]
    variance = np.square(logs - design @ estimates).sum(axis=0) / freedom
    variance, total_freedom = moderated(np.maximum(variance, 1e-8), freedom)
    error = np.sqrt(variance * np.linalg.inv(design.T @ design)[3, 3])
    p_value = 2 * stats.t.sf(np.abs(estimates[3] / error), total_freedom)
    found = {"estimate": estimates[3], "error": error, "p_value": p_value}
    found["fdr"] = stats.false_discovery_control(p_value)
    return pd.DataFrame(found, index=adata.var_names)


METHODS = {"EffectVI": by_effects, "linear model": by_linear_model}


def without_interaction(adata: AnnData, seed: int) -> AnnData:
    """Return samples whose log counts are an additive fit plus residuals in random order."""
    logs, design = log_cpm(adata), design_of(adata)
    fits = [
        each @ np.linalg.lstsq(each, logs, rcond=None)[0]
        for each in (np.delete(design, 3, axis=1), design)
    ]
    # residuals of a fit are smaller than the noise
    residual = (logs - fits[1]) * np.sqrt(len(design) / (len(design) - design.shape[1]))
    order = np.random.default_rng(seed).permutation(len(design))
    sizes = dense(adata).sum(axis=1, keepdims=True) / 1e6
    made = adata.copy()
    made.X = np.round(sizes * 2 ** (fits[0] + residual[order])).astype(np.int32)
    return made


def agreement(adata: AnnData) -> pd.Series:
    """Return how far the estimates and calls of both methods agree."""
    one, two = (method(adata) for method in METHODS.values())
    calls = [(each["fdr"] < FDR).to_numpy() for each in (one, two)]
    both, tested = calls[0] & calls[1], (one["error"] < LARGEST_ERROR).to_numpy()
    estimates = one["estimate"].to_numpy(), two["estimate"].to_numpy()
    same = np.sign(estimates[0]) == np.sign(estimates[1])
    return pd.Series(
        {
            "called, EffectVI": calls[0].sum(),
            "called, linear model": calls[1].sum(),
            "called by both": both.sum(),
            "same sign, called by both": same[both].mean(),
            "correlation of estimates": np.corrcoef(*(each[tested] for each in estimates))[0, 1],
            "correlation, called by the linear model": np.corrcoef(
                *(each[calls[1]] for each in estimates)
            )[0, 1],
        }
    )


def confirmed(adata: AnnData) -> pd.DataFrame:
    """Return the calls in two experiments, and how often their sign is that in the other two."""
    rows = []
    for chosen in combinations(sorted(adata.obs["experiment"].unique()), 2):
        is_in = adata.obs["experiment"].isin(chosen).to_numpy()
        truth = np.sign(by_linear_model(adata[~is_in])["estimate"])
        found = {name: method(adata[is_in]) for name, method in METHODS.items()}
        n_called = {name: int((each["fdr"] < FDR).sum()) for name, each in found.items()}
        row = {f"called, {name}": n for name, n in n_called.items()}
        for name, each in found.items():
            same = (np.sign(each["estimate"]) == truth).to_numpy()
            # as many genes of each method, those with the smallest p-values
            first = np.argsort(each["p_value"].to_numpy())[: n_called["EffectVI"]]
            row[f"confirmed, {name}"] = same[first].mean()
        rows.append({"experiments": "+".join(chosen), **row})
    table = pd.DataFrame(rows).set_index("experiments")
    table.loc["mean"] = table.mean()
    return table


def null(adata: AnnData) -> pd.DataFrame:
    """Return p-values below 0.05 and calls of samples without an interaction, mean of three seeds."""
    totals = dense(adata).sum(axis=0)
    genes = {"all": totals > 0, "few counts": totals < np.median(totals)}
    genes["many counts"] = ~genes["few counts"]
    rows = []
    for seed in SEEDS:
        made = without_interaction(adata, seed)
        for name, method in METHODS.items():
            found = method(made)
            is_small = (found["p_value"] < 0.05).to_numpy()
            shares = {f"p < 0.05, {word}": is_small[some].mean() for word, some in genes.items()}
            rows.append({"method": name, **shares, "called": (found["fdr"] < FDR).sum()})
    return pd.DataFrame(rows).groupby("method").mean()


def bulk() -> None:
    """Print all three comparisons."""
    adata, _ = hypoxia()
    print(f"\nBulk samples, {adata.n_obs} samples, {adata.n_vars} genes, FDR {FDR}")
    print(agreement(adata).round(3).to_string())
    print(f"\nTwo experiments, and the other two\n{confirmed(adata).round(3).to_string()}")
    print(f"\nWithout an interaction\n{null(adata).round(3).to_string()}", flush=True)
