"""Holes in the latent space of a model."""

from __future__ import annotations

import pytest
import scvi

from betavi import BetaVI
from betavi.datasets import simulate_counts


def test_holes_between_types():
    scvi.settings.seed = 0
    adata = simulate_counts(n_cells=1500, n_genes=100, n_types=4, spread_within_type=0.1, seed=0)
    BetaVI.setup_anndata(adata)
    trained = BetaVI(adata, n_latent=2)
    trained.train(40, enable_progress_bar=False)
    found = trained.find_holes()
    assert found.n_obs >= 1
    assert (found.obs["depth"] >= 0.05).all()
    assert (found.obs["p_value"] < 0.02).all()
    assert (found.obs["share"].diff().dropna() <= 0).all()
    types = trained.adata.obs["cell_type"]
    first = found.obs.iloc[0]
    assert types.loc[first["start"]] != types.loc[first["end"]]
    with pytest.raises(ValueError, match="level is a share"):
        trained.find_holes(level=2)


def test_no_holes_in_cells_of_one_kind():
    scvi.settings.seed = 0
    adata = simulate_counts(n_cells=800, n_genes=60, n_types=1, seed=0)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=3)
    model.train(30, enable_progress_bar=False)
    found = model.find_holes()
    assert found.shape == (0, 60)
