"""Every section of the trust report, for every model."""

from __future__ import annotations

import pytest
import scvi
import torch

from betavi import BetaVI, EffectVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome, simulate_perturbations
from betavi.model.report.sections import SECTIONS
from tests.brief import repeat_less
from tests.conftest import BRIEF
from tests.contracts import check_section

OF_MODELS = {
    "BetaVI": {"effects", "interactions"},
    "range": {"effects", "interactions"},
    "JointVI": {"effects", "interactions", "rate_distortion"},
    "EffectVI": {"rate_distortion", "denoising", "calibration"},
}
"""Sections that a model does not have."""


@pytest.fixture(scope="module")
def models():
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    adata = simulate_counts(n_cells=200, n_genes=30, n_batches=2, seed=0)
    BetaVI.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    mdata = simulate_multiome(
        n_cells=200, n_genes=20, n_peaks=15, n_proteins=6, n_batches=2, seed=0
    )
    JointVI.setup_mudata(
        mdata, {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}, batch_key="batch"
    )
    screen = simulate_perturbations(n_cells=300, n_genes=30, n_perturbations=3, n_combinations=2)
    EffectVI.setup_anndata(screen, perturbation_key="perturbation")
    found = {
        "BetaVI": BetaVI(adata, n_latent=3), "range": BetaVI(adata, n_latent=3, beta=(0.1, 10)),
        "JointVI": JointVI(mdata, n_latent=3), "EffectVI": EffectVI(screen, n_latent=3),
    }  # fmt: skip
    for model in found.values():
        model.train(**BRIEF, train_size=0.7)
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", OF_MODELS)
@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_keeps_its_contract(name, kind, models, monkeypatch):
    repeat_less(monkeypatch.setattr)
    model = models[kind]
    section = check_section(name, model)
    is_missing = name in OF_MODELS[kind] or (name == "rate_distortion" and kind != "range")
    assert (section.state == "not available") == is_missing, section.sentence
    assert not any(finding.section != name for finding in section.findings)
