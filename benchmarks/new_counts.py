"""Coverage of the 90 % intervals of new counts, from denoised values and their standard deviations.

The molecules of all cells are split at random into two halves. BetaVI is trained on one half, and its
denoised values and standard deviations give an interval for each count of the other half. The table
has the median coverage over genes, the 5 % and 95 % quantiles, and the share of genes between 0.88
and 0.92. *mean* is ``denoise(estimate="mean")``, which does not use the cell's own count.
No choice was made on these data: the intervals follow from the negative binomial distribution.
``python -m benchmarks.new_counts [set ...] [seed ...]`` takes about 10 minutes for three seeds.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
import scvi

from benchmarks.peers import REAL, UNSEEN, DataSet, quietly
from betavi import BetaVI
from betavi.diagnostics import HeldOutMolecules, thin
from betavi.model.denoising.estimate import ESTIMATES
from betavi.model.denoising.retrain import denoised_moments, molecule_counts, trained_on

FRACTION, DRAWS, MOST_CELLS, SEEDS = 0.5, 10, 2500, (0, 1, 2)
WELL_MEASURED = 0.5
"""Mean count of a half, from which on a gene is listed on its own: rare counts say little."""

LIKELIHOODS = ("zinb", "nb", "poisson")


def coverages(data: DataSet, likelihood: str, seed: int) -> dict[str, pd.Series]:
    """Return the coverage of each gene with enough molecules, by estimate."""
    adata = data.read()
    some = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:MOST_CELLS])
    adata = adata[some].copy()
    scvi.settings.seed = seed
    BetaVI.setup_anndata(adata, batch_key=data.batch_key)
    model = BetaVI(adata, gene_likelihood=likelihood)
    parts = thin(molecule_counts(model)["X"], FRACTION, seed)
    held_out = HeldOutMolecules(parts)
    half = trained_on(model, {"X": parts.kept}, {}, False, {"accelerator": "cpu"})
    enough = np.asarray(parts.held_out.mean(axis=0)).ravel() > WELL_MEASURED
    return {
        estimate: pd.Series(held_out.coverage(denoised_moments(half, "X", estimate, DRAWS))[enough])
        for estimate in ESTIMATES
    }


def main(*words: str) -> None:
    quietly(1)
    warnings.filterwarnings("ignore")
    seeds = [int(word) for word in words if word.isdigit()] or SEEDS
    every = REAL | UNSEEN
    rows: list[dict[str, Any]] = []
    for name in [name for name in every if name in words] or list(every):
        for likelihood in LIKELIHOODS:
            for seed in seeds:
                for estimate, of_genes in coverages(every[name], likelihood, seed).items():
                    rows.append(
                        {
                            "data": name,
                            "likelihood": likelihood,
                            "estimate": estimate,
                            "genes": len(of_genes),
                            "median": of_genes.median(),
                            "5 %": of_genes.quantile(0.05),
                            "95 %": of_genes.quantile(0.95),
                            "0.88 to 0.92": of_genes.between(0.88, 0.92).mean(),
                        }
                    )
                    print(*rows[-1].values(), sep="\t", flush=True)
    table = pd.DataFrame(rows).groupby(["data", "likelihood", "estimate"], sort=False).median()
    print(f"\nMedians over seeds {list(seeds)}:\n{table.round(3).to_string()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
