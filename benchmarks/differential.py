"""False positives of differential tests, on genes shuffled among cells of similar depth.

Half of the genes are shuffled, so that they do not differ between cell types. Models are trained on
the result, and each type is compared with the others. A gene is called if any comparison calls it.
``python -m benchmarks.differential [data set ...]`` takes about ten minutes, longer for ``pbmc10k``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from scipy import stats

from benchmarks.peers import quietly
from benchmarks.realism import read
from betavi import BetaVI
from betavi.diagnostics import shuffle_genes

if TYPE_CHECKING:
    from benchmarks.realism import Set
    from betavi.diagnostics import Shuffled

LEVEL = 0.05
BAYES_FACTOR = 3.0
"""Usual threshold of the test ``vanilla``, natural log."""


def shuffled(data: Set) -> tuple[anndata.AnnData, Shuffled]:
    """Return cells with some genes shuffled, and the shuffled genes."""
    keys = data.adata.obs[data.batch_key] if data.batch_key else np.zeros(data.adata.n_obs)
    strata = pd.factorize(np.asarray(keys))[0]
    found = shuffle_genes(data.adata.X, strata)
    adata = anndata.AnnData(found.counts.astype(np.float32), data.adata.obs, data.adata.var[[]])
    return adata, found


def by_counts(adata: anndata.AnnData, found: Shuffled) -> dict[str, np.ndarray]:
    """Return genes called by tests of log counts: Wilcoxon, and ANOVA within similar depth."""
    logs = adata.copy()
    sc.pp.normalize_total(logs, target_sum=1e4)
    sc.pp.log1p(logs)
    # types differ in depth, and depth affects shuffled genes too
    off = found.within(logs.X.toarray())
    groups = [off[(adata.obs["type"] == name).to_numpy()] for name in adata.obs["type"].unique()]
    varies = np.ptp(off, axis=0) > 0
    p = np.ones(adata.n_vars)
    p[varies] = stats.f_oneway(*(part[:, varies] for part in groups)).pvalue
    within = stats.false_discovery_control(p) < LEVEL
    sc.tl.rank_genes_groups(logs, "type", method="wilcoxon")
    table = sc.get.rank_genes_groups_df(logs, group=None)
    called = table.loc[table["pvals_adj"] < LEVEL, "names"]
    names = ("counts, Wilcoxon", "counts, within cells of similar depth")
    return dict(zip(names, (adata.var_names.isin(called), within), strict=True))


def by_model(model: Any, mode: str) -> np.ndarray:
    """Return the genes that a model's test calls."""
    table = model.differential_expression(groupby="type", mode=mode, silent=True)
    if mode == "change":
        called = table[f"is_de_fdr_{LEVEL}"]
    else:
        called = table["bayes_factor"].abs() > BAYES_FACTOR
    return model.adata.var_names.isin(table.index[called])


def measure(name: str) -> pd.DataFrame:
    data = read(name)
    adata, found = shuffled(data)
    is_shuffled = np.isin(np.arange(adata.n_vars), found.genes)
    calls = by_counts(adata, found)
    for label, cls in (("BetaVI", BetaVI), ("SCVI", scvi.model.SCVI)):
        scvi.settings.seed = 0
        cells = adata.copy()
        cls.setup_anndata(cells, batch_key=data.batch_key)
        model = cls(cells)
        model.train(accelerator="cpu", enable_progress_bar=False)
        for mode in ("vanilla", "change"):
            calls[f"{label}, {mode}"] = by_model(model, mode)
    rows = {
        test: {"shuffled genes": called[is_shuffled].mean(), "others": called[~is_shuffled].mean()}
        for test, called in calls.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def main(*names: str) -> None:
    quietly()
    for name in names or ("pancreas", "kang"):
        table = measure(name)
        print(f"\n{name}: share of genes that each test calls different between types")
        print(table.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
