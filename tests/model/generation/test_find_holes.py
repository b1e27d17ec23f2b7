"""Holes in the latent space of a model."""

from __future__ import annotations

import numpy as np
import pytest
import scvi

from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.diagnostics import find_holes


@pytest.mark.slow
def test_holes_between_types():
    scvi.settings.seed = 0
    adata = simulate_counts(n_cells=1500, n_genes=100, n_types=4, spread_within_type=0.1, seed=0)
    BetaVI.setup_anndata(adata)
    trained = BetaVI(adata, n_latent=2)
    trained.train(40, enable_progress_bar=False)
    found = trained.find_holes()
    assert found.n_obs >= 1
    assert (found.obs["depth"] >= 0.05).all()
    assert (found.obs["evidence"] > 0).all()
    assert (found.obs["share"].diff().dropna() <= 0).all()
    types = trained.adata.obs["cell_type"]
    first = found.obs.iloc[0]
    assert first["p_value"] < 0.02
    assert types.loc[first["start"]] != types.loc[first["end"]]
    with pytest.raises(ValueError, match="`level` must be a probability"):
        trained.find_holes(level=2)


def test_no_holes_in_cells_of_one_kind():
    scvi.settings.seed = 0
    adata = simulate_counts(n_cells=800, n_genes=60, n_types=1, seed=0)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=3)
    model.train(30, enable_progress_bar=False)
    found = model.find_holes()
    assert found.shape == (0, 60)


def test_more_dimensions_than_it_works_in_are_warned_of():
    adata = simulate_counts(n_cells=300, n_genes=20, seed=0)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=4)
    model.train(1, train_size=0.6, enable_progress_bar=False)
    with pytest.warns(UserWarning, match="4 latent dimensions"):
        model.find_holes(show_progress=False)


@pytest.mark.slow
def test_planted_holes_among_real_cells(real):
    """A twentieth of the cells, around a random one: the method was not chosen on these."""
    scvi.settings.seed = 0
    adata = real("zeisel_1464x1000.h5ad")
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=2)
    model.train(12, enable_progress_bar=False)
    cells = model.get_latent_representation()
    n_found, by_chance = 0, 0.0
    for seed in range(10):
        centre = cells[np.random.default_rng(seed).integers(len(cells))]
        distance = np.linalg.norm(cells - centre, axis=1)
        radius = np.quantile(distance, 0.05)
        centres = find_holes(cells[distance > radius], seed=seed).centres
        n_found += (np.linalg.norm(centres - centre, axis=1) < radius).any()
        by_chance += 1 - 0.95 ** len(centres)
    assert n_found >= 7
    assert by_chance < 4
