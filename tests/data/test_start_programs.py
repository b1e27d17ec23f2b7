"""Programs at which additive decoders start."""

from __future__ import annotations

import mudata
import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from scipy import sparse

from betavi import BetaVI, JointVI
from betavi.data.start_programs import programs
from betavi.datasets import simulate_multiome


def planted(n_cells=400, n_genes=60, n_programs=3, seed=0):
    """Return counts with programs of separate genes, each active in some cells."""
    rng = np.random.default_rng(seed)
    genes = np.arange(n_genes) % (2 * n_programs)
    active = rng.random((n_cells, n_programs)) < 0.3
    log_rate = 1.5 * active @ np.equal.outer(np.arange(n_programs), genes)
    return AnnData(sparse.csr_array(rng.poisson(np.exp(log_rate + 0.5)).astype(np.float32))), genes


def found_in(adata, n_programs, cells=None):
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata)
    cells = np.arange(adata.n_obs) if cells is None else cells
    return programs(model.adata_manager, ["X"], cells, n_programs)


def test_planted_programs_are_found():
    adata, genes = planted()
    found = found_in(adata, 4)["X"].numpy()
    assert found.shape == (4, 60)
    assert (found >= 0).all()
    for program in range(3):
        truth = (genes == program).astype(float)
        assert max(np.corrcoef(row, truth)[0, 1] for row in found) > 0.95


def test_the_same_seed_finds_the_same_programs():
    adata, _ = planted()
    results = []
    for _ in range(2):
        scvi.settings.seed = 3
        results.append(found_in(adata, 5)["X"])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_more_programs_than_cells_are_zero():
    adata, _ = planted()
    found = found_in(adata, 8, cells=np.arange(5))["X"]
    assert found.isfinite().all()
    assert (found[4:] == 0).all()


def test_programs_of_several_modalities_belong_to_the_same_dimension():
    mdata = simulate_multiome(n_cells=300)
    JointVI.setup_mudata(mdata, likelihoods=dict.fromkeys(mdata.mod, "nb"))
    model = JointVI(mdata)
    keys = list(model.module.likelihoods)
    found = programs(model.adata_manager, keys, np.arange(300), 4)
    assert {key: tuple(part.shape) for key, part in found.items()} == {
        key: (4, mdata[key].n_vars) for key in keys
    }


@pytest.mark.parametrize("n_common", [0, 100])
def test_cells_that_lack_modalities(n_common):
    """With a chain of pairs, no cell may have all modalities. Then, the one of most cells has a start."""
    mdata = simulate_multiome(n_cells=300)
    names = list(mdata.mod)
    cells = {name: np.arange(300) for name in names}
    cells[names[0]], cells[names[-1]] = np.arange(150 + n_common), np.arange(150, 300)
    mixed = mudata.MuData({name: mdata[name][some].copy() for name, some in cells.items()})
    JointVI.setup_mudata(mixed, likelihoods=dict.fromkeys(names, "nb"))
    model = JointVI(mixed, decoder="additive")
    found = programs(model.adata_manager, names, np.arange(mixed.n_obs), 4)
    assert set(found) == (set(names) if n_common else {names[1]})
    assert len(names) > 2
    model.train(max_epochs=1, enable_progress_bar=False)
    assert np.isfinite(model.get_elbo())
