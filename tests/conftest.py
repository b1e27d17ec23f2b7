from __future__ import annotations

import inspect
import os
from pathlib import Path

import anndata
import numpy as np
import pytest
import scvi
import torch

from betavi import BetaVI
from betavi.datasets import simulate_counts
from tests.brief import shorten

# a run of a few minibatches, for tests of what a model does rather than of how well it fits
BRIEF = {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"}


def mostly_slow(values, fast):
    """Return values for ``parametrize``, all marked slow except for the fast ones."""
    slow = pytest.mark.slow
    return [value if value in fast else pytest.param(value, marks=slow) for value in values]


def slow_where(values, slow):
    """Return values for ``parametrize``, and mark the slow ones."""
    return mostly_slow(values, [value for value in values if value not in slow])


def getters(cls):
    """Return the names of a model's functions that take ``beta=`` by the decorator ``takes_beta``."""
    public = [name for name in dir(cls) if not name.startswith("_")]
    functions = [name for name in public if inspect.isfunction(getattr(cls, name))]
    given = {n: inspect.signature(getattr(cls, n)).parameters.get("beta") for n in functions}
    return sorted(n for n, word in given.items() if word and word.kind is word.KEYWORD_ONLY)


@pytest.fixture(autouse=True)
def _one_thread():
    """Give each worker of pytest-xdist a core: more threads than cores slow each other many times.

    Before every test, as numba, which scanpy calls, sets the number for the whole process.
    """
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    scvi.settings.seed = 0


@pytest.fixture
def brief(monkeypatch):
    """Let no model train for long, whatever an example asks for: what is tested is that it runs."""
    shorten(monkeypatch.setattr)


@pytest.fixture
def counts():
    """Simulated counts with every kind of covariate."""
    adata = simulate_counts(n_cells=300, n_genes=40, seed=1)
    rng = np.random.default_rng(0)
    adata.obs["donor"] = rng.choice(["a", "b", "c"], adata.n_obs)
    adata.obs["age"] = rng.normal(size=adata.n_obs)
    adata.obs["size"] = rng.uniform(0.5, 2.0, adata.n_obs)
    adata.layers["raw"] = adata.X.copy()
    return adata


@pytest.fixture
def model(counts):
    """A briefly trained model of two batches."""
    BetaVI.setup_anndata(counts, batch_key="batch", labels_key="cell_type")
    model = BetaVI(counts, n_latent=4)
    model.train(**BRIEF)
    return model


@pytest.fixture
def real():
    """Read real counts by file name; skip where there are none."""
    folder = os.environ.get("BETAVI_DATA_DIR")
    if not folder:
        pytest.skip("BETAVI_DATA_DIR is not set, so there are no real counts")

    def read(name: str) -> anndata.AnnData:
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"BETAVI_DATA_DIR has no {name}")
        return anndata.read_h5ad(path)

    return read
