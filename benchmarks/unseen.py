"""Knock-outs that were left out, predicted from coordinates of their genes.

Each knock-out of datlinger whose gene is among the measured genes is left out in turn, with and without TCR
stimulation. Its coordinates are the loadings of its gene in 10 principal components of the other cells, as
in the linear baseline of Ahlmann-Eltze et al. (2025). In the 60 control cells, five of the six genes have no
counts, so their loadings there would be zero. Scores use the 1,000 genes with most counts.
EffectVI predicts its expected profile at the depth of the left-out cells, for the most likely effect of the
knock-out. It is compared with the same prediction with coordinates of other genes (shuffled), and without
an effect of the knock-out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from benchmarks.perturbed_cells import dense
from benchmarks.screens import datlinger, set_up
from betavi.diagnostics.effects.baselines import log_profile
from betavi.metrics import perturbation_scores
from betavi.model.effects.draws import condition_draws
from betavi.model.effects.evaluate import drawn_sums
from betavi.model.effects.request import condition_named

if TYPE_CHECKING:
    from anndata import AnnData

    from betavi import EffectVI

N_COMPONENTS, N_GENES, N_SHUFFLES = 10, 1000, 5
STIMULI = {"without TCR": ("control", ""), "with TCR": ("TCR", "+TCR")}
COLUMNS = ["l2", "r2", "r_control", "r_centroid"]


def loadings(adata: AnnData) -> pd.DataFrame:
    """Return the loadings of the genes in principal components of the cells."""
    found = PCA(N_COMPONENTS, random_state=0).fit(log_profile(dense(adata)))
    return pd.DataFrame(found.components_.T, index=adata.var_names)


def shuffled(embedding: pd.DataFrame, genes: list[str], seed: int) -> pd.DataFrame:
    """Return coordinates of the genes in random order."""
    order = np.random.default_rng(seed).permutation(len(genes))
    return pd.DataFrame(embedding.loc[genes].to_numpy()[order], index=genes)


def expected_profile(
    model: EffectVI, name: str, counts: np.ndarray, embedding: pd.DataFrame | None = None
) -> np.ndarray:
    """Return the expected log profile of a condition at the depth of measured counts."""
    estimate, rng = model.module.stored_estimate(), np.random.default_rng(0)
    condition = condition_named(estimate, model.conditions, name, None, 0, False, embedding)
    if condition.new is not None:
        # its variance would move the expected logarithm away from the prediction
        new = condition.new._replace(variance=np.zeros_like(condition.new.variance))
        condition = condition._replace(new=new, n_new_pairs=0)
    shares = condition_draws(estimate, condition, rng).condition
    drawn = drawn_sums(counts.sum() * shares, estimate.inflation, rng)
    profile: np.ndarray = log_profile(drawn).mean(axis=0)
    return profile


def unseen() -> None:
    """Print the mean scores of each method, with and without stimulation."""
    adata, keys = datlinger()
    names = adata.obs["condition"].astype(str)
    sums = {name: dense(adata[(names == name).to_numpy()]).sum(axis=0) for name in names.unique()}
    top = np.argsort(-sum(sums.values()))[:N_GENES]
    knock_outs = [gene for gene in adata.obs["gene"].unique() if gene != "control"]
    known = [gene for gene in knock_outs if gene in adata.var_names]
    rows = []
    for gene in known:
        rest = adata[(adata.obs["gene"] != gene).to_numpy()].copy()
        model, embedding = set_up(rest, keys), loadings(rest)
        model.train(max_epochs=1, train_size=1.0, enable_progress_bar=False)
        coordinates = [shuffled(embedding, known, seed) for seed in range(N_SHUFFLES)]
        for stimulus, (reference, ending) in STIMULI.items():
            name, counts = gene + ending, sums[gene + ending]
            others = [log_profile(sums[each + ending]) for each in knock_outs if each != gene]
            mean, control = np.mean(others, axis=0), log_profile(sums[reference])
            random = [expected_profile(model, name, counts, each) for each in coordinates]
            found = {
                "EffectVI, loadings": [expected_profile(model, name, counts, embedding)],
                "EffectVI, shuffled loadings": random,
                "EffectVI, no knock-out": [expected_profile(model, reference, counts)],
                "no change": [control],
                "mean of other knock-outs": [mean],
            }
            for method, profiles in found.items():
                predicted = np.stack(profiles)[:, top]
                observed = np.tile(log_profile(counts)[top], (len(predicted), 1))
                scores = perturbation_scores(predicted, observed, control[top], mean[top])
                names_of_row = {"stimulus": stimulus, "gene": gene, "method": method}
                rows.append(names_of_row | scores[COLUMNS].mean().to_dict())
    table = pd.DataFrame(rows)
    by_method = table.groupby(["stimulus", "method"], sort=False)[COLUMNS].mean()
    print(f"\nUnseen knock-outs, datlinger: {len(known)} of {len(knock_outs)} have coordinates")
    print(by_method.round(3).to_string())
    by_gene = table.pivot_table("l2", ["stimulus", "gene"], "method", sort=False)
    print(f"\nL2 of each knock-out\n{by_gene.round(1).to_string()}", flush=True)
