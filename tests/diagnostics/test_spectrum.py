from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from betavi.datasets import simulate_counts
from betavi.diagnostics import active_dimensions, alive_in_theory, signal_spectrum

NOISE = 0.5


def linear_vae(x, n_latent, beta):
    """Train a linear Gaussian VAE of fixed noise, whose ELBO has a closed form; return posteriors."""
    torch.manual_seed(0)
    n_features = x.shape[1]
    decoder = (0.3 * torch.randn(n_features, n_latent, dtype=torch.float64)).requires_grad_()
    encoder = (0.3 * torch.randn(n_features, n_latent, dtype=torch.float64)).requires_grad_()
    log_scale = torch.zeros(n_latent, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([decoder, encoder, log_scale], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3000)
    for _ in range(3000):
        loc, variance = x @ encoder, (2 * log_scale).exp()
        error = (x - loc @ decoder.T).square().sum(dim=1) + (decoder.square() @ variance).sum()
        kl = (loc.square() + variance - 1).sum(dim=1) / 2 - log_scale.sum()
        loss = (error / (2 * NOISE) + beta * kl).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    loc = (x @ encoder).detach().numpy()
    return loc, np.broadcast_to(log_scale.detach().exp().numpy(), loc.shape)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0, 8.0, 20.0, 60.0])
def test_a_linear_vae_keeps_as_many_dimensions_as_the_theory_says(beta):
    rng = np.random.default_rng(0)
    variances = np.array([20.0, 8.0, 3.0, 1.2, NOISE, NOISE, NOISE, NOISE])
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    # samples of exactly this covariance
    sample = np.linalg.qr(rng.normal(size=(4000, 8)))[0] * math.sqrt(4000)
    x = torch.tensor(sample * np.sqrt(variances) @ rotation.T)
    loc, scale = linear_vae(x, 6, beta)
    # a hundredth of a nat: the closest direction to a threshold is 20 % above it
    n_active = active_dimensions(loc, scale, threshold=0.01)
    assert n_active == min(6, alive_in_theory(variances, NOISE, beta))


@pytest.mark.slow
def test_directions_are_the_factors_and_cells_without_factors_have_none():
    options = {"n_cells": 1000, "n_types": 1, "n_batches": 1, "spread_within_type": 1.0}
    for n_factors in (1, 3, 6):
        spectrum = signal_spectrum(simulate_counts(n_factors=n_factors, **options).X)
        # a strong factor bends, in counts, and takes more than one direction
        assert spectrum.n_factors >= n_factors
        assert spectrum.active_at(1.0) == spectrum.n_factors
        assert spectrum.active_at(1e9) == 0
    options["spread_within_type"] = 0.0
    found = [signal_spectrum(simulate_counts(**options, seed=i).X).n_factors for i in range(5)]
    assert sum(found) <= 1


@pytest.mark.slow
def test_signals_are_freed_of_noise():
    """Poisson counts whose log means follow weak directions, of strengths worked out by hand."""
    rng = np.random.default_rng(0)
    n_cells, n_genes, mean = 1000, 2000, 10.0
    strengths = np.array([40.0, 20.0, 10.0])
    loadings = np.linalg.qr(rng.normal(size=(n_genes, 3)))[0] * np.sqrt(strengths / mean)
    z = rng.normal(size=(n_cells, 3))
    spectrum = signal_spectrum(rng.poisson(mean * np.exp(z @ loadings.T)))
    # residuals in units of the noise vary by the mean times the square of the loadings
    assert spectrum.n_factors == 3
    np.testing.assert_allclose(spectrum.signals, strengths, rtol=0.12)
    assert np.median(spectrum.noise) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_what_a_covariate_explains_is_no_signal():
    """Poisson counts that follow one number, registered or not, and one direction beside it."""
    rng = np.random.default_rng(0)
    z, loadings = rng.normal(size=(800, 2)), 0.15 * rng.normal(size=(2, 500))
    counts = rng.poisson(10 * np.exp(z @ loadings))
    assert signal_spectrum(counts).n_factors == 2
    assert signal_spectrum(counts, covariates=z[:, :1]).n_factors == 1
    assert signal_spectrum(counts, covariates=z).n_factors == 0


@pytest.mark.slow
def test_what_groups_differ_in_is_no_signal():
    adata = simulate_counts(n_types=6, spread_within_type=0.0, n_batches=3)
    both = np.column_stack([adata.obs[key].cat.codes for key in ("cell_type", "batch")])
    assert signal_spectrum(adata.X).n_factors >= 4
    assert signal_spectrum(adata.X, both).n_factors == 0


def test_genes_without_counts_have_no_noise():
    adata = simulate_counts(n_genes=30)
    counts = adata.X.toarray()
    counts[:, 3] = 0
    noise = signal_spectrum(counts).noise
    assert np.flatnonzero(np.isnan(noise)).tolist() == [3]
    # counts vary by more than Poisson noise, but for zero inflation and sampling
    assert np.median(noise[~np.isnan(noise)]) > 1


@pytest.mark.parametrize("n_features", [8, 15, 200])
@pytest.mark.parametrize("code", [0, -1])
def test_few_features_that_share_a_total_are_no_directions(n_features, code):
    counts = np.random.default_rng(0).poisson(5.0, (1000, n_features))
    assert signal_spectrum(counts, assays=np.full(n_features, code)).n_factors == 0


@pytest.mark.slow
def test_the_depth_of_each_assay_is_its_own():
    rng = np.random.default_rng(0)
    depths = np.exp(rng.normal(size=(1000, 2)))
    counts = rng.poisson(2 * np.repeat(depths, 100, axis=1))
    assays = np.repeat([0, 1], 100)
    assert signal_spectrum(counts, assays=assays).n_factors == 0
    assert signal_spectrum(counts).n_factors > 0
    assert signal_spectrum(counts, assays=np.full(200, -1)).n_factors > 0
