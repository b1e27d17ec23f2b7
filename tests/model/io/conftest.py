from __future__ import annotations

import pytest

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome
from tests.conftest import BRIEF

LIKELIHOODS = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}
SMALL = {"n_latent": 3, "n_hidden": 8}


def simulated(name, **kwargs):
    """Return an object of a class of models, set up."""
    if name == "BetaVI":
        data = simulate_counts(n_cells=60, n_genes=12, n_batches=2, seed=0)
        BetaVI.setup_anndata(data, batch_key="batch", **kwargs)
    else:
        data = simulate_multiome(
            n_cells=60, n_genes=12, n_peaks=9, n_proteins=4, n_batches=2, missing={"adt": 0.3}
        )
        JointVI.setup_mudata(data, LIKELIHOODS, batch_key="batch", **kwargs)
    return data


@pytest.fixture(params=["BetaVI", "JointVI"])
def fitted(request):
    """A briefly trained model of either class."""
    model = {"BetaVI": BetaVI, "JointVI": JointVI}[request.param](simulated(request.param), **SMALL)
    model.train(**BRIEF)
    return model
