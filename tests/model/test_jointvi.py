"""JointVI against simulations with known factors, and against itself with parts left out."""

from __future__ import annotations

import warnings

import mudata
import numpy as np
import pytest
import torch
from scipy import sparse, stats
from sklearn.linear_model import LinearRegression

from betavi import JointVI
from betavi.datasets import simulate_multiome
from betavi.model.expression.translation import _levels
from betavi.nn import FUSIONS
from tests.conftest import BRIEF

LIKELIHOODS = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}
JOINT = [name for name in FUSIONS if name != "single"]
several = pytest.mark.parametrize("fusion", JOINT)


def trained(mdata=None, train=None, missing=None, **kwargs):
    mdata = simulate_multiome(n_cells=300, missing=missing) if mdata is None else mdata
    JointVI.setup_mudata(mdata, {name: LIKELIHOODS[name] for name in mdata.mod})
    model = JointVI(mdata, **{"n_latent": 5, "n_hidden": 32} | kwargs)
    model.train(**BRIEF | (train or {}))
    return model


def padded(mdata):
    """Give every cell a row of zeros of every modality that it lacks, as other packages want it."""
    parts = {}
    for name, part in mdata.mod.items():
        rows = mdata.obsmap[name].astype(int) - 1
        full = np.where(rows[:, None] >= 0, part.X.toarray()[rows], 0)
        parts[name] = type(part)(sparse.csr_matrix(full), var=part.var)
        parts[name].obs_names = mdata.obs_names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mudata.MuData(parts)


@several
def test_cells_may_lack_anything(fusion):
    mdata = simulate_multiome(n_cells=300, missing={"rna": 0.4, "adt": 0.4, "atac": 0.4})
    has = {name: mdata.obsmap[name] > 0 for name in mdata.mod}
    patterns = {tuple(row) for row in np.array(list(has.values())).T}
    assert len(patterns) == 7
    model = trained(mdata, fusion=fusion)
    assert np.isfinite(model.get_latent_representation()).all()
    assert np.isfinite(model.get_elbo())
    for name, cells in has.items():
        with pytest.warns(UserWarning, match=f"{(~cells).sum()} cell"):
            alone = model.get_latent_representation(modalities=name)
        np.testing.assert_array_equal(np.isfinite(alone).all(axis=1), cells)


@several
def test_masked_is_omitted(fusion):
    """A cell's position does not depend on what was not asked for, be it there or not."""
    mdata = simulate_multiome(n_cells=300)
    model = trained(mdata, fusion=fusion)
    asked = model.get_latent_representation(modalities=["rna", "adt"])
    spoilt = mdata.copy()
    spoilt["atac"].X = sparse.csr_matrix(np.full(spoilt["atac"].shape, 1000))
    np.testing.assert_array_equal(
        model.get_latent_representation(spoilt, modalities=["adt", "rna"]), asked
    )


@several
def test_zeros_in_the_place_of_what_is_missing_change_nothing(fusion):
    mdata = simulate_multiome(n_cells=300, missing={"adt": 0.5, "atac": 0.3})
    model = trained(mdata, fusion=fusion)
    own = model.get_latent_representation()
    full = padded(mdata)
    # as padded objects say it: the zeros are there, and masks say that they are none
    loader = model.minibatches(model._validate_anndata(full), None, None, model.modalities)
    found = []
    for start, tensors in zip(range(0, 300, 128), loader, strict=True):
        cells = slice(start, start + 128)
        masks = {
            f"{name}_present": torch.as_tensor(mdata.obsmap[name][cells, None] > 0)
            for name in mdata.mod
        }
        inputs = model.module._get_inference_input(tensors | masks)
        found.append(model.module.inference(**inputs)["qz"].mean.detach().numpy())
    np.testing.assert_allclose(np.concatenate(found), own, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_factors_are_found_from_every_modality():
    mdata = simulate_multiome(n_cells=1000, n_types=1, n_factors=3, n_proteins=40)
    model = trained(mdata, train={"max_epochs": 60}, fusion="mopoe", n_hidden=64)
    z, scores = mdata.obsm["z"], {}
    for names in (["rna"], ["adt"], ["atac"], None):
        latent = model.get_latent_representation(modalities=names)
        fitted = LinearRegression().fit(latent[:500], z[:500])
        scores["+".join(names or ["all"])] = fitted.score(latent[500:], z[500:])
    assert min(scores.values()) > 0.3
    assert scores["all"] >= max(scores.values()) - 0.02


@pytest.mark.slow
def test_proteins_are_translated_with_an_interval_that_holds():
    mdata = simulate_multiome(n_cells=1200, n_types=1, n_factors=3, n_peaks=0, missing={"adt": 0.4})
    paired = simulate_multiome(n_cells=1200, n_types=1, n_factors=3, n_peaks=0)
    model = trained(mdata, train={"max_epochs": 80}, fusion="mvtcae", n_hidden=64)
    cells = np.flatnonzero(mdata.obsmap["adt"] == 0)
    found = model.translate(
        "rna", "adt", indices=cells, n_samples=50, scale="log1p", show_progress=False
    )
    assert found.obs_names.equals(mdata.obs_names[cells])
    truth = np.log1p(paired["adt"][found.obs_names].X.toarray())
    r = [stats.pearsonr(found.X[:, j], truth[:, j]).statistic for j in range(truth.shape[1])]
    assert np.mean(r) > 0.4
    inside = (truth >= found.layers["lower"]) & (truth <= found.layers["upper"])
    assert 0.84 < inside.mean() < 0.96
    # better than the mean of each protein
    seen = np.log1p(mdata["adt"].X.toarray()).mean(axis=0)
    assert np.square(found.X - truth).mean() < np.square(seen - truth).mean()


@pytest.mark.slow
def test_what_cannot_be_predicted_is_said():
    mdata = simulate_multiome(n_cells=1000, n_peaks=0)
    counts, rng = mdata["adt"].X.toarray(), np.random.default_rng(0)
    # of these proteins a cell's RNA knows nothing
    counts[:, :5] = rng.permuted(counts[:, :5], axis=0)
    mdata["adt"].X = sparse.csr_matrix(counts)
    model = trained(mdata, train={"max_epochs": 60, "train_size": 0.7}, n_hidden=64)
    table = model.predictability("rna", "adt", show_progress=False)
    assert not table["is_predictable"][:5].any()
    assert table["is_predictable"][5:].mean() > 0.8
    assert table["r2"][5:].min() > table["r2"][:5].max()
    with pytest.raises(ValueError, match=r"of the .* have .*, but at least 24 are needed"):
        model.predictability("rna", "adt", indices=[1, 2, 3])


@pytest.mark.parametrize("n_samples", [19, 25, 100])
def test_intervals_of_few_draws_hold_as_often_as_those_of_many(n_samples):
    draws = torch.from_numpy(np.random.default_rng(0).exponential(size=(n_samples, 40_000)))
    lower, upper = draws.quantile(_levels(n_samples).double(), dim=0)
    inside = (-lower).exp() - (-upper).exp()
    assert inside.mean().item() == pytest.approx(0.9, abs=0.006)


def test_what_cannot_be_translated():
    model = trained(missing={"adt": 0.5})
    with pytest.raises(ValueError, match="both source and target"):
        model.translate(["rna", "adt"], "adt")
    with pytest.raises(ValueError, match="at least 19 samples"):
        model.translate("rna", "adt", n_samples=18)
    with pytest.raises(ValueError, match="no modality 'prot'"):
        model.translate("rna", "prot")
    lacking = np.flatnonzero(model.adata.obsmap["adt"] == 0)
    with pytest.raises(ValueError, match="No cell has the modality 'adt'"):
        model.translate("adt", "rna", indices=lacking)


def test_expression_accessibility_and_proteins_are_those_of_every_cell():
    mdata = simulate_multiome(n_cells=200, n_batches=2, missing={"rna": 0.3, "atac": 0.3})
    JointVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")
    model = JointVI(mdata, n_latent=4)
    model.train(**BRIEF)
    expression = model.get_normalized_expression(library_size=100.0, n_samples=3)
    assert expression.index.equals(mdata.obs_names)
    assert expression.columns.equals(mdata["rna"].var_names)
    np.testing.assert_allclose(expression.sum(axis=1), 100.0, rtol=1e-4)
    for found, name in (
        (model.get_normalized_accessibility(indices=[3, 5]), "atac"),
        (model.get_protein_foreground_probability(indices=[3, 5]), "adt"),
    ):
        assert found.shape == (2, mdata[name].n_vars)
        assert found.index.equals(mdata.obs_names[[3, 5]])
        assert ((found >= 0) & (found <= 1)).all(axis=None)
    moved = [model.get_normalized_expression(transform_batch=f"batch_{i}") for i in range(2)]
    assert not np.allclose(moved[0], moved[1])
    with pytest.raises(ValueError, match="no batch 'batch_7'"):
        model.get_normalized_expression(transform_batch="batch_7")
    with pytest.raises(ValueError, match="'atac' has the likelihood 'bernoulli'"):
        model.get_normalized_expression(modality="atac")


@pytest.mark.slow
def test_proteins_that_are_there_are_told_from_background():
    mdata = simulate_multiome(n_cells=1000, n_peaks=0, missing={"rna": 0.2})
    model = trained(mdata, train={"max_epochs": 60}, n_hidden=64)
    found = model.get_protein_foreground_probability()
    truth = mdata["adt"].layers["is_foreground"][mdata.obsmap["adt"] - 1]
    assert found.index.equals(mdata.obs_names)
    values = found.to_numpy()
    assert values[truth].mean() > values[~truth].mean() + 0.3


def test_weights_scale_the_distortion_and_not_what_is_reported():
    mdata = simulate_multiome(n_cells=128, n_peaks=0)
    model = trained(mdata, modality_weights={"adt": 3.0})
    tensors = next(iter(model._make_data_loader(mdata)))
    model.module.eval()
    found = {}
    for weight in (3.0, 1.0):
        model.module.weights["adt"] = weight
        torch.manual_seed(0)
        found[weight] = model.module(tensors)[2]
    parts = found[1.0].reconstruction_loss
    for key, value in found[3.0].reconstruction_loss.items():
        torch.testing.assert_close(value, parts[key])
    more = found[3.0].loss - found[1.0].loss
    torch.testing.assert_close(more, 2 * parts["reconstruction_loss_adt"].mean(), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="names 'atac'"):
        JointVI(mdata, modality_weights={"atac": 1.0})
    with pytest.raises(ValueError, match=r"\['adt'\]` must be a positive number, not 0.0"):
        JointVI(mdata, modality_weights={"adt": 0.0})
    for wrong in (float("inf"), float("nan"), "2"):
        with pytest.raises(ValueError, match="must be a positive number"):
            JointVI(mdata, modality_weights={"adt": wrong})


def test_a_saved_model_answers_as_before(tmp_path):
    model = trained(missing={"adt": 0.3})
    model.save(tmp_path / "model", save_anndata=True)
    loaded = JointVI.load(tmp_path / "model")
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation()
    )
    assert "JointVI model of rna, adt, atac" in model._model_summary_string


@pytest.mark.slow
def test_the_learning_rate_rises_and_falls_unless_another_is_asked_for():
    def rates(**plan):
        plan = {"plan_kwargs": plan} if plan else {}
        model = trained(train={"max_epochs": 10} | plan)
        return model.trainer.optimizers[0].param_groups[0]

    assert rates()["max_lr"] == 1e-2
    assert rates()["lr"] < 1e-4
    assert rates(one_cycle=3e-3)["max_lr"] == 3e-3
    assert rates(lr=5e-4)["lr"] == 5e-4
