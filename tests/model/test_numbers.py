"""Losses, latents, denoised values and p-values stay what they were, on fixed seeds.

``python -m tests.model.test_numbers`` writes ``numbers.json`` anew, after a change that is meant to
move them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scvi
import torch

import betavi
from tests.conftest import slow_where

STORED = Path(__file__).with_name("numbers.json")
TOLERANCE = 2e-3
"""Relative differences that the order of summation on another CPU makes after training."""
FROM_DRAWS = {"agreement", "signal", "sensitivity", "sensitivity_error"}
"""Estimates of a diagnosis from random draws. Rejection sampling makes other draws on other CPUs."""
RANKS = 2 / 121
"""Two steps of a p-value: it is a rank among the 120 held-out cells, so rounding moves it by steps."""
N_SHOWN = 6
QUIET = {"show_progress": False}


def some(values):
    """Return a few of the values and two summaries, as numbers that JSON holds."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    few = flat[:: max(1, len(flat) // N_SHOWN)][:N_SHOWN]
    return [*few.tolist(), float(flat.mean()), float(flat.std())]


def counts():
    return betavi.datasets.simulate_counts(n_cells=300, n_genes=60, n_batches=2, seed=0)


def single(train=None, covariates=False, **kwargs):
    scvi.settings.seed = 0
    adata = counts()
    adata.obs["depth"] = np.linspace(-1, 1, adata.n_obs)
    adata.obs["size"] = np.asarray(adata.X.sum(axis=1)).ravel() / 100
    setup = {"batch_key": "batch"}
    if covariates:
        setup |= {
            "continuous_covariate_keys": ["depth"],
            "categorical_covariate_keys": ["cell_type"],
        }
    if kwargs.pop("size_factor", False):
        setup |= {"size_factor_key": "size"}
    betavi.BetaVI.setup_anndata(adata, **setup)
    model = betavi.BetaVI(adata, n_latent=4, n_hidden=32, **kwargs)
    model.train(max_epochs=3, train_size=0.6, enable_progress_bar=False, **(train or {}))
    return model


def joint(**kwargs):
    scvi.settings.seed = 0
    mdata = betavi.datasets.simulate_multiome(
        n_cells=300, n_genes=40, n_proteins=8, n_peaks=30, n_batches=2, seed=0, missing={"adt": 0.3}
    )
    likelihoods = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}
    betavi.JointVI.setup_mudata(mdata, likelihoods, batch_key="batch")
    model = betavi.JointVI(mdata, n_latent=4, n_hidden=32, **kwargs)
    model.train(max_epochs=3, train_size=0.6, enable_progress_bar=False)
    return model


def of_single(model):
    adata = model.adata
    found = {
        "elbo_train": some(model.history["elbo_train"].to_numpy().astype(float)),
        "latent": some(model.get_latent_representation()),
    }
    for name, options in {
        "posterior": {},
        "mean": {"estimate": "mean"},
        "batch": {"transform_batch": "batch_1", "library_size": 1000.0},
        "draws": {"n_samples": 3},
    }.items():
        torch.manual_seed(0)
        model.denoise(layer_added=name, std_layer_added="std", **options, **QUIET)
        found[f"denoised {name}"] = some(adata.layers[name])
        found[f"std {name}"] = some(adata.layers["std"])
        del adata.layers[name], adata.layers["std"]
    torch.manual_seed(0)
    found["normalized"] = some(model.get_normalized_expression(n_samples=2, return_numpy=True))
    torch.manual_seed(0)
    found["in a batch"] = some(
        model.get_normalized_expression(transform_batch="batch_1", return_numpy=True)
    )
    torch.manual_seed(0)
    parameters = model.get_likelihood_parameters()
    found |= {f"parameter {name}": some(values) for name, values in sorted(parameters.items())}
    return found


def maps(model):
    table = model.support(**QUIET)
    found = {f"support {name}": some(table[name]) for name in table.select_dtypes("float")}
    found["support of positions"] = some(
        model.support(latent=np.linspace(-1, 1, 8).reshape(2, 4), **QUIET)
    )
    ends = model.adata.obs_names[:2]
    for name, made in {
        "path": model.interpolate(*ends, n_steps=4, **QUIET),
        "path of density": model.interpolate(*ends, n_steps=4, path="density", **QUIET),
        "archetype": model.archetype(**QUIET),
        "from the prior": model.generate(20, seed=1, **QUIET),
        "from the aggregate": model.generate(20, source="aggregate", seed=1, **QUIET),
        "around cells": model.generate(20, source="cells", batch="batch_1", seed=1, **QUIET),
    }.items():
        parts = made.mod if hasattr(made, "mod") else {"counts": made}
        for part, values in parts.items():
            x = values.X.toarray() if hasattr(values.X, "toarray") else values.X
            found[f"{name}, {part}"] = some(np.nan_to_num(x))
            if "std" in values.layers:
                found[f"{name}, {part}, std"] = some(np.nan_to_num(values.layers["std"]))
        found[f"{name}, z"] = some(made.obsm["z"])
    return found


def of_collapse(model):
    report = model.diagnose(**QUIET)
    numbers = report.dimensions.select_dtypes("number")
    exact = [name for name in numbers if name not in FROM_DRAWS]
    return {f"diagnosis {name}": some(numbers[name].fillna(0)) for name in exact} | {
        "diagnosis": [report.rate, report.distortion, report.mutual_information]
    }


def of_joint(model):
    torch.manual_seed(0)
    found = {
        "elbo_train": some(model.history["elbo_train"].to_numpy().astype(float)),
        "latent": some(model.get_latent_representation()),
        "latent of rna": some(model.get_latent_representation(modalities="rna")),
    }
    torch.manual_seed(0)
    model.denoise(**QUIET)
    found |= {f"denoised {k}": some(v.layers["denoised"]) for k, v in model.adata.mod.items()}
    torch.manual_seed(0)
    proteins = model.translate("rna", "adt", calibrate=False, **QUIET)
    found |= {"translated": some(proteins.X), "upper end": some(proteins.layers["upper"])}
    torch.manual_seed(0)
    found["normalized"] = some(model.get_normalized_expression(n_samples=2, return_numpy=True))
    torch.manual_seed(0)
    found["accessibility"] = some(model.get_normalized_accessibility(return_numpy=True))
    torch.manual_seed(0)
    found["foreground"] = some(model.get_protein_foreground_probability(return_numpy=True))
    errors = model.get_reconstruction_error()
    found["distortions"] = [float(errors[name]) for name in sorted(errors)]
    return found


CASES = {
    "zinb": lambda: (
        (model := single(covariates=True)) and of_single(model) | maps(model) | of_collapse(model)
    ),
    "nb": lambda: of_single(single(gene_likelihood="nb", dispersion="gene-batch")),
    "poisson, latent sizes": lambda: (
        of_single(model := single(gene_likelihood="poisson", use_observed_lib_size=False))
        | maps(model)
    ),
    "nb, size factors": lambda: (
        of_single(model := single(gene_likelihood="nb", size_factor=True)) | maps(model)
    ),
    "lognormal": lambda: of_single(
        single(gene_likelihood="lognormal", prior="vamp", n_components=5)
    ),
    "logistic normal": lambda: of_single(single(latent_distribution="ln", prior="mixture")),
    "autoencoder": lambda: of_single(single(latent_distribution="deterministic")),
    "many betas": lambda: (
        of_single(model := single(beta=(0.1, 10)))
        | {"curve": some(model.rate_distortion([0.1, 1.0, 10.0], n_samples=1, **QUIET)["elbo"])}
    ),
    "free bits": lambda: of_single(single(train={"free_bits": 0.3, "beta_schedule": "cyclical"})),
    "capacity": lambda: of_single(single(beta=10.0, train={"capacity": 3.0})),
    "target rate": lambda: of_single(single(train={"target_rate": 4.0})),
    "joint, mvtcae": lambda: (
        (model := joint()) and of_joint(model) | maps(model) | of_collapse(model)
    ),
    "joint, poe": lambda: of_joint(joint(fusion="poe")),
    "joint, moe": lambda: of_joint(joint(fusion="moe", prior="vamp", n_components=5)),
    "joint, mopoe": lambda: of_joint(joint(fusion="mopoe", beta=(0.1, 10))),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", slow_where(CASES, {"joint, mvtcae"}))
def test_numbers_are_what_they_were(case):
    stored = json.loads(STORED.read_text())[case]
    found = CASES[case]()
    assert found.keys() == stored.keys()
    for name, values in found.items():
        # the largest value of a kind sets what rounding may change
        atol = RANKS if name == "support p_value" else TOLERANCE * np.abs(stored[name]).max()
        np.testing.assert_allclose(values, stored[name], rtol=TOLERANCE, atol=atol, err_msg=name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    STORED.write_text(json.dumps({case: make() for case, make in CASES.items()}, indent=1) + "\n")
