"""Simulated perturbation screens, models of these, and the truth that the models should find."""

from __future__ import annotations

import numpy as np
import scvi
import torch

from betavi import EffectVI
from betavi.datasets import expected_profile, simulate_perturbations
from tests.conftest import BRIEF

FEWEST_COUNTS = 0.3
"""Expected counts per ten thousand from which on a gene is compared."""


def screen(n_cells=3000, seed=0, **kwargs):
    sizes = {"n_genes": 150, "n_perturbations": 5, "n_combinations": 4, "library_size": 2000}
    return simulate_perturbations(n_cells, seed=seed, **sizes | kwargs)


def without(adata, dropped):
    """Return the other cells, with the truth."""
    rest = adata[~np.asarray(dropped)].copy()
    rest.uns["truth"] = adata.uns["truth"]
    return rest


def registered(adata, cls=EffectVI, **keys):
    cls.setup_anndata(adata, perturbation_key="perturbation", **keys)
    return adata


def fitted(adata, max_epochs=1, keys=None, training=None, **kwargs):
    """Return a model. Its effects are estimated before training, so one epoch is sufficient for them."""
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    registered(adata, **keys or {})
    model = EffectVI(adata, **{"n_latent": 4, "n_hidden": 32} | kwargs)
    model.train(**BRIEF | {"max_epochs": max_epochs} | (training or {}))
    return model


def true_profile(adata, name, noise_sd=0.0, **condition):
    """Return expected counts per ten thousand. With noise, those of a new replicate."""
    shares = expected_profile(adata, name, **condition).to_numpy()
    shares = shares * np.exp(np.random.default_rng(len(name)).normal(0, noise_sd, len(shares)))
    return 1e4 * shares / shares.sum()


def true_change(adata, name, context=None, **condition):
    """Return true log2 fold changes against the control."""
    change = true_profile(adata, name, context=context, **condition)
    return np.log2(change / true_profile(adata, "control", context=context))


def is_counted(adata):
    return true_profile(adata, "control") > FEWEST_COUNTS


def covered(truth, lower, upper, genes):
    return float(((truth >= lower) & (truth <= upper))[genes].mean())
