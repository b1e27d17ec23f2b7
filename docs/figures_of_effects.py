"""Pictures of a simulated perturbation screen: predictions, interactions and dose curves.

Drawn with the others by ``python -m docs.figures``, or alone by ``python -m docs.figures_of_effects``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scvi

import betavi
from docs._drawing import begin, save

if TYPE_CHECKING:
    from anndata import AnnData

LEFT_OUT = "P2+P7"
DRUG, DOSES = "P1", (0.1, 0.3, 1.0, 3.0, 10.0)


def screen(**options: Any) -> AnnData:
    """Simulate a screen with interactions, and three replicates."""
    effects = betavi.datasets.EffectDistribution(share_interacting=0.1)
    return betavi.datasets.simulate_perturbations(
        4000, n_perturbations=8, effects=effects, n_replicates=3, replicate_sd=0.1, **options
    )


def fitted(adata: AnnData, dose_key: str | None = None) -> betavi.EffectVI:
    scvi.settings.seed = 0
    betavi.EffectVI.setup_anndata(
        adata, perturbation_key="perturbation", dose_key=dose_key, replicate_key="replicate"
    )
    model = betavi.EffectVI(adata)
    model.train(enable_progress_bar=False)
    return model


def combinations() -> None:
    """Draw the prediction of a left-out pair, and the interactions of all pairs."""
    adata = screen(n_combinations=6)
    measured = betavi.metrics.measured_changes(adata, "perturbation")
    model = fitted(adata[adata.obs["perturbation"] != LEFT_OUT].copy())
    predicted = model.predict(LEFT_OUT)
    save("predicted_change", betavi.pl.predicted_change(predicted, measured))
    save("interactions", betavi.pl.interactions(fitted(adata).interactions(), n_genes=20))


def doses() -> None:
    """Draw the dose curves of one drug, beside measured values."""
    adata = screen(doses=DOSES)
    model = fitted(adata, dose_key="dose")
    curves = {dose: model.predict(DRUG, dose=dose) for dose in np.geomspace(0.1, 10, 15)}
    measured = betavi.metrics.measured_changes(adata, "perturbation", dose_key="dose")
    response = model.dose_response()
    print(response.loc[DRUG], adata.uns["truth"]["dose_curves"].loc[DRUG])
    save("dose_curves", betavi.pl.dose_curves(curves, observed=measured, response=response))


def everything() -> None:
    combinations()
    doses()


if __name__ == "__main__":
    begin()
    everything()
