"""Modalities that z ignores: planted, found, and told from dimensions that are another's."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import scvi
import torch

from betavi import JointVI
from betavi.datasets import simulate_multiome
from betavi.nn import FUSIONS
from tests.conftest import getters, mostly_slow
from tests.model.collapse.answers import plain

QUIET = {"show_progress": False}
LIKELIHOODS = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}
ARGUMENTS = {
    "differential_abundance": {"sample_key": "cell_type"},
    "differential_expression": {"groupby": "cell_type", "group1": "type_0", "silent": True},
    "get_normalized_accessibility": {"modality": "atac"},
    "get_marginal_ll": {"n_mc_samples": 2},
    "get_reconstruction_error": {"return_mean": False},
    "denoise": QUIET,
    "generate": {"n_cells": 20, "seed": 0, **QUIET},
    "interpolate": {"start": 0, "end": 1, "n_steps": 3, **QUIET},
    "predictability": {"source": "rna", "target": "adt", **QUIET},
    "transfer_labels": {"adata": None, "labels_key": "cell_type", "indices": [0, 1], **QUIET},
    "translate": {"source": "rna", "target": "adt", **QUIET},
}
WITH_GAPS = {"poe", "mopoe", "mvtcae"}


def trained(mdata=None, max_epochs=60, **kwargs):
    mdata = (
        simulate_multiome(n_cells=1200, n_proteins=30, missing={"adt": 0.3})
        if mdata is None
        else mdata
    )
    JointVI.setup_mudata(mdata, {name: LIKELIHOODS[name] for name in mdata.mod})
    model = JointVI(mdata, **{"n_latent": 6, "n_hidden": 64} | kwargs)
    model.train(
        max_epochs, train_size=0.7, enable_progress_bar=False, plan_kwargs={"one_cycle": 1e-2}
    )
    return model


@pytest.fixture(scope="module")
def healthy():
    return trained()


@pytest.fixture(scope="module")
def report(healthy):
    return healthy.diagnose(**QUIET)


def sabotaged(model, parts):
    """Return a copy whose weights of some parts are noise of no use."""
    other = copy.copy(model)
    other.module = copy.deepcopy(model.module)
    with torch.no_grad():
        for parameter in parts(other.module).parameters():
            parameter.zero_()
    return other


@pytest.mark.slow
def test_healthy_modalities_are_called_so(report):
    assert report.ignored_modalities == []
    assert list(report.modalities) == ["rna", "adt", "atac"]
    table = report.by_modality()
    assert (table["used dimensions"] > 0).all()
    assert (table["explained"] > 0).all()
    # fewer cells have proteins
    assert table.loc["adt", "cells"] < table.loc["rna", "cells"]
    assert "By modality:" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["decoders", "z_encoders"])
def test_a_modality_that_z_ignores_is_a_collapse(healthy, report, part):
    before = report.modalities["adt"].explained["adt"]
    broken = sabotaged(healthy, lambda module: getattr(module, part)["adt"])
    report = broken.diagnose(modalities=["rna", "adt"], **QUIET)
    assert report.ignored_modalities == ["adt"]
    assert report.verdict == "partial"
    assert "Ignored modalities: adt." in str(report)
    assert "adt" in report._repr_html_()
    (alone,) = [report.modalities[name] for name in report.ignored_modalities]
    assert alone.causes
    assert set(alone.remedies) <= set(report.remedies)
    assert any("modality_weights={'adt'" in remedy for remedy in alone.remedies)
    assert alone.explained["adt"] < before / 2


@pytest.mark.slow
def test_a_modality_without_signal_is_ignored_for_want_of_it():
    mdata = simulate_multiome(n_cells=800, n_peaks=0)
    rng = np.random.default_rng(0)
    mdata["adt"].X = rng.poisson(5.0, mdata["adt"].shape).astype(np.float32)
    report = trained(mdata, max_epochs=40).diagnose(**QUIET)
    assert report.ignored_modalities == ["adt"]
    assert report.modalities["adt"].causes[0].name == "too_few_counts"
    assert report.modalities["rna"].verdict != "collapsed"


@pytest.mark.parametrize(
    "fusion", mostly_slow([name for name in FUSIONS if name != "single"], {"poe"})
)
def test_every_fusion_is_diagnosed(fusion):
    mdata = simulate_multiome(n_cells=300, n_peaks=0, missing={"adt": 0.3})
    model = trained(mdata, max_epochs=3, fusion=fusion)
    report = model.diagnose(**QUIET)
    assert np.isnan(report.amortisation_gap) == (fusion not in WITH_GAPS)
    # of one modality there is a posterior that has seen all there is, whatever the rule
    assert all(np.isfinite(alone.amortisation_gap) for alone in report.modalities.values())
    assert all(cause.name != "lagging_encoder" for cause in report.causes) or fusion in WITH_GAPS


@pytest.mark.slow
def test_assays_that_no_cell_shares_are_diagnosed_too():
    mdata = simulate_multiome(n_cells=300, n_peaks=0)
    parts = {"rna": mdata["rna"][:150].copy(), "adt": mdata["adt"][150:].copy()}
    with pytest.warns(UserWarning, match="No cell links"):
        model = trained(type(mdata)(parts), max_epochs=3)
    report = model.diagnose(**QUIET)
    assert report.spectrum.noise.shape == (200,)
    assert list(report.modalities) == ["rna", "adt"]


def test_what_cannot_be_diagnosed_is_refused():
    model = trained(simulate_multiome(n_cells=100, n_peaks=0), max_epochs=1)
    with pytest.raises(ValueError, match="no modality 'protein'"):
        model.diagnose(modalities="protein", **QUIET)
    with pytest.raises(ValueError, match=r"Only 5 cells .* at least 20 are needed"):
        model.diagnose(indices=range(5), **QUIET)


@pytest.mark.slow
def test_a_diagnosis_of_one_modality_repeats_and_changes_nothing(healthy, report):
    before = {name: value.clone() for name, value in healthy.module.state_dict().items()}
    again = healthy.diagnose(modalities="rna", **QUIET)
    assert list(again.modalities) == ["rna"]
    assert again.dimensions.equals(report.dimensions)
    assert again.modalities["rna"].dimensions.equals(report.modalities["rna"].dimensions)
    for name, value in healthy.module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
def test_a_joint_model_is_rescued():
    mdata = simulate_multiome(n_cells=300, n_peaks=0)
    model = trained(mdata, max_epochs=10, beta=300.0, fusion="poe")
    report = model.rescue(max_epochs=100, **QUIET)
    assert report.before.verdict == "collapsed"
    assert report.chosen != "nothing"
    assert report.after.active_dimensions > 0
    assert model.module.options.fusion == "poe"


@pytest.mark.slow
def test_every_beta_of_a_joint_model_has_its_point():
    mdata = simulate_multiome(n_cells=600, n_peaks=50)
    model = trained(mdata, max_epochs=30, beta=(0.1, 10), n_latent=4)
    curve = model.rate_distortion([0.1, 1, 10], indices=model.validation_indices)
    assert curve["rate"].is_monotonic_decreasing
    assert curve["distortion"].is_monotonic_increasing
    weak, strong = (model.get_latent_representation(beta=beta) for beta in (0.1, 10))
    assert not np.allclose(weak, strong)
    # there are no holes at either
    names = [name for name in getters(JointVI) if name != "find_holes"]
    for name in names:
        getter = getattr(model, name)
        assert inspect.signature(getter).parameters["beta"].default is None
        answers = []
        for beta in (0.1, 10):
            scvi.settings.seed = 0
            answer = getter(beta=beta, **ARGUMENTS.get(name, {}))
            answer = model.adata["rna"].layers["denoised"].copy() if name == "denoise" else answer
            if answer is not None:
                answers.append(plain(answer))
        assert not answers or not np.array_equal(*answers), name
    assert model.module.beta_condition.beta == 1.0
