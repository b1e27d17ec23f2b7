"""Step of the demo that predicts a pair of perturbations, in a simulated screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scvi

import betavi

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

LEFT_OUT = "P2+P7"
KEYS = {"perturbation_key": "perturbation", "replicate_key": "replicate"}
SCORES = {
    "EffectVI": "EffectVI",
    "additive": "sum of both changes",
    "matching mean": "mean of conditions that share a perturbation",
    "no change": "no change",
}


def trained(adata: AnnData, max_epochs: int) -> betavi.EffectVI:
    """Return a model of a screen."""
    scvi.settings.seed = 0
    betavi.EffectVI.setup_anndata(adata, **KEYS)
    model = betavi.EffectVI(adata)
    model.train(max_epochs=max_epochs, enable_progress_bar=False)
    return model


def predict_pair(output: Path, max_epochs: int) -> tuple[betavi.EffectVI, list[str]]:
    """Predict a pair that was left out, write a table and a figure.

    Returns the model of all conditions, and the results in words.
    """
    screen = betavi.datasets.simulate_perturbations(
        n_cells=3000, n_perturbations=8, n_combinations=6, n_replicates=3, replicate_sd=0.1,
        effects=betavi.datasets.EffectDistribution(share_interacting=0.1),
    )  # fmt: skip
    is_left_out = (screen.obs["perturbation"] == LEFT_OUT).to_numpy()
    predicted = trained(screen[~is_left_out].copy(), max_epochs).predict(LEFT_OUT)
    measured = betavi.metrics.measured_changes(screen, KEYS["perturbation_key"])
    names = ("lower", "upper", "lfc", "lfc_lower", "lfc_upper")
    columns = {"mean": predicted.X[0]} | {name: predicted.layers[name][0] for name in names}
    columns["measured_lfc"] = np.ravel(measured[LEFT_OUT].layers["lfc"])
    table = pd.DataFrame(columns, index=predicted.var_names.rename("gene"))
    table.to_csv(output / "predicted_pair.csv")

    complete = trained(screen, max_epochs)
    by_gene, by_pair = complete.interactions()
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    betavi.pl.predicted_change(predicted, measured, ax=axes[0])
    betavi.pl.interactions(by_gene, n_genes=20, ax=axes[1])
    axes[0].set_title(f"{LEFT_OUT}, left out of training")
    figure.savefig(output / "effects.png", dpi=150)

    scores = complete.evaluate(show_progress=False)
    r = np.corrcoef(table["lfc"], table["measured_lfc"])[0, 1]
    distances = ", ".join(f"{label} {scores.loc[key, 'l2']:.1f}" for key, label in SCORES.items())
    return complete, [
        f"Correlation of predicted and measured log2 fold changes of {LEFT_OUT}: {r:.2f}.",
        f"Distance to the measured profile, mean of {len(by_pair)} pairs that are left out in turn "
        f"(low is better): {distances}.",
        f"{scores.loc['EffectVI', 'coverage']:.1%} of the left-out counts are in the 90 % interval.",
        f"Genes that interact at a false discovery rate of 0.1: {by_pair['n_genes'].sum()}.",
    ]
