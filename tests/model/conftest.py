from __future__ import annotations

import pytest
import scvi
import torch

from betavi import BetaVI
from betavi.datasets import simulate_counts


@pytest.fixture(scope="module")
def whole():
    return simulate_counts(n_cells=2400, n_genes=120, n_types=4, n_batches=2, seed=3)


@pytest.fixture(scope="module")
def trained(whole):
    """A model that has seen three of four types, and held cells of these out twice."""
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    adata = whole[whole.obs["cell_type"] != "type_3"].copy()
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata, n_latent=5)
    model.train(50, enable_progress_bar=False, train_size=0.6, validation_size=0.2)
    return model
