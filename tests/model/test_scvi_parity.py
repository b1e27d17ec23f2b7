"""BetaVI in the place of SCVI: signatures, answers of untrained models, and expression values."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from scvi import settings
from scvi.model import SCVI
from torch.distributions import Normal

import betavi
from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome
from betavi.model.core.latent_model import LatentModel
from tests.module.test_vae import copy_weights

QUIET = {"show_progress": False}

SHARED = [
    name
    for name in dir(SCVI)
    if name.startswith(("get_", "differential_", "posterior_"))
    and callable(getattr(SCVI, name))
    and hasattr(BetaVI, name)
]

OTHER_DEFAULTS = {
    # None is SCVI's default for BetaVI and MULTIVI's for JointVI
    "differential_expression": {"mode": "vanilla", "delta": 0.25},
}
WITHOUT = {
    # of scvi-tools 1.5: groups of cells are columns of an object, of which a datamodule has none
    "differential_expression": {"dataloader"},
}


def arguments(ability):
    """Return names and defaults of the arguments of a method, in order."""
    parameters = list(inspect.signature(ability).parameters.values())[1:]
    return [
        (word.name, word.default)
        for word in parameters
        if word.kind not in (word.VAR_KEYWORD, word.VAR_POSITIONAL)
    ]


def has_kwargs(ability):
    parameters = inspect.signature(ability).parameters.values()
    return any(word.kind is word.VAR_KEYWORD for word in parameters)


def test_what_is_shared_is_known():
    assert {"get_elbo", "get_normalized_expression", "posterior_predictive_sample"} < set(SHARED)
    public = {name for name in dir(SCVI) if not name.startswith("_")}
    assert public <= set(dir(BetaVI))


@pytest.mark.parametrize("name", SHARED)
def test_signatures_are_those_of_scvi(name):
    theirs, ours = getattr(SCVI, name), getattr(BetaVI, name)
    wanted = [pair for pair in arguments(theirs) if pair[0] not in WITHOUT.get(name, set())]
    found = arguments(ours)
    for word, default in OTHER_DEFAULTS.get(name, {}).items():
        assert (word, None) in found
        found[found.index((word, None))] = (word, default)
    assert found[: len(wanted)] == wanted
    assert has_kwargs(ours) or not has_kwargs(theirs)


# -- untrained ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adata():
    return simulate_counts(n_cells=60, n_genes=20, n_batches=2, seed=0)


def untrained(cls, adata, **kwargs):
    cls.setup_anndata(adata, batch_key="batch")
    return cls(adata, n_latent=3, **kwargs)


ANSWERED = {
    "get_elbo": {},
    "get_marginal_ll": {"n_mc_samples": 4},
    "get_reconstruction_error": {},
    "get_normalized_expression": {"return_numpy": True},
    "get_likelihood_parameters": {},
    "posterior_predictive_sample": {},
    "get_feature_correlation_matrix": {"n_samples": 2},
}
REFUSED = {
    "get_latent_representation": {},
    "get_latent_library_size": {"give_mean": False},
    "get_aggregated_posterior": {},
}


def numbers(answer):
    if isinstance(answer, dict):
        return np.concatenate([np.ravel(value) for value in answer.values()])
    return np.asarray(answer.todense() if hasattr(answer, "todense") else answer, dtype=float)


@pytest.mark.parametrize("name", ANSWERED)
def test_an_untrained_model_answers_where_scvi_does(adata, name):
    shapes = []
    for cls in (SCVI, BetaVI):
        getter = getattr(untrained(cls, adata), name)
        if cls is BetaVI:
            with pytest.warns(UserWarning, match="not trained"):
                found = numbers(getter(**ANSWERED[name]))
        else:
            found = numbers(getter(**ANSWERED[name]))
        assert np.isfinite(found).all()
        shapes.append(found.shape)
    assert shapes[0] == shapes[1]


def test_an_untrained_model_compares_groups_where_scvi_does(adata):
    idx1, idx2 = np.arange(30), np.arange(30, 60)
    for cls in (SCVI, BetaVI):
        model = untrained(cls, adata)
        table = model.differential_expression(idx1=idx1, idx2=idx2, silent=True)
        assert len(table) == adata.n_vars
    with pytest.raises(ValueError, match="'uniform', 'importance', not 'importence'"):
        model.differential_expression(idx1=idx1, idx2=idx2, silent=True, weights="importence")


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("cls", [SCVI, BetaVI])
def test_an_untrained_model_refuses_where_scvi_does(adata, cls, name):
    with pytest.raises(RuntimeError, match=r"(?i)train"):
        getattr(untrained(cls, adata), name)(**REFUSED[name])


OURS = {
    "denoise": QUIET,
    "diagnose": QUIET,
    "rescue": QUIET,
    "rate_distortion": QUIET,
    "suggest_beta": QUIET,
    "support": QUIET,
    "latent_density": QUIET,
    "generate": {"n_cells": 2, **QUIET},
    "interpolate": {"start": 0, "end": 1, **QUIET},
    "archetype": {"cells": [0, 1]},
    "find_holes": QUIET,
    "score_counts": {},
    "transfer_labels": {"adata": None, "labels_key": "batch", **QUIET},
    "translate": {"source": "rna", "target": "adt", **QUIET},
    "predictability": {"source": "rna", "target": "adt", **QUIET},
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("cls", [BetaVI, JointVI])
def test_abilities_that_scvi_has_not_refuse_an_untrained_model(adata, cls, name):
    if not hasattr(cls, name):
        pytest.skip(f"{cls.__name__} has no {name}")
    if cls is BetaVI:
        model = untrained(BetaVI, adata)
    else:
        mdata = simulate_multiome(n_cells=40, n_peaks=0)
        JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        model = JointVI(mdata)
    with pytest.raises(RuntimeError, match="not trained"):
        getattr(model, name)(**OURS[name])


# -- the classes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [BetaVI, JointVI])
def test_mro(cls):
    ours = [part for part in cls.__mro__ if part.__module__.startswith(betavi.__name__)]
    assert ours == [cls, LatentModel]
    assert len(cls.__mro__) <= 14


# -- modules for older scvi-tools ------------------------------------------------------------------


def with_moments(outputs):
    """Return outputs of a module that gives mean and variance of z in place of its posterior."""
    qz = outputs.pop("qz")
    return outputs | {"qzm": qz.loc, "qzv": qz.scale**2}


class OlderModule:
    """A module whose ``inference`` returns moments, and which has no device."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        if name == "device":
            raise AttributeError(name)
        return getattr(self.module, name)

    def inference(self, *args, **kwargs):
        return with_moments(self.module.inference(*args, **kwargs))


def test_moments_in_place_of_a_posterior(adata):
    model = untrained(BetaVI, adata)
    model.is_trained_ = True
    model.module.eval()
    before = model.get_latent_representation(return_dist=True)
    model.module = OlderModule(model.module)
    after = model.get_latent_representation(return_dist=True)
    np.testing.assert_allclose(after, before, rtol=1e-6)
    np.testing.assert_array_equal(model.get_latent_representation(), after[0])


# -- normalised expression ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    """An SCVI, and a BetaVI with its weights."""
    adata = simulate_counts(n_cells=150, n_genes=30, n_batches=2, seed=0)
    torch.manual_seed(0)
    theirs = untrained(SCVI, adata)
    ours = untrained(BetaVI, adata)
    # weights of every part, and statistics that differ from those of a new layer
    theirs.module.train()
    for tensors in theirs._make_data_loader(adata):
        theirs.module(tensors)
    for parameter in theirs.module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    copy_weights(theirs.module, ours.module)
    for model in (theirs, ours):
        model.module.eval()
        model.is_trained_ = True
    return theirs, ours


@pytest.fixture
def same_draws(monkeypatch):
    """Let draws of one shape be the same draws: SCVI draws once more where it is asked for several."""

    def sample(self, shape=()):
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self._extended_shape(torch.Size(shape)), generator=generator)
        return self.loc + noise * self.scale

    for name in ("sample", "rsample"):
        monkeypatch.setattr(Normal, name, sample)


def both(pair, **kwargs):
    answers = []
    for model in pair:
        torch.manual_seed(0)
        answers.append(model.get_normalized_expression(**kwargs))
    return answers


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"library_size": 1e4},
        {"library_size": "latent"},
        {"transform_batch": "batch_1"},
        {"transform_batch": ["batch_1"], "library_size": "latent"},
        {"n_samples": 4},
        {"n_samples": 4, "return_mean": False},
        {"gene_list": ["gene_3", "gene_7", "gene_20"]},
        {"gene_list": ["gene_3", "gene_7"], "n_samples": 3, "library_size": "latent"},
        {"indices": [40, 3, 99], "batch_size": 2},
    ],
    ids=str,
)
def test_expression_is_that_of_scvi_with_the_same_weights(pair, kwargs, same_draws):
    theirs, ours = both(pair, **kwargs)
    assert type(ours) is type(theirs)
    if not isinstance(ours, np.ndarray):
        assert ours.index.equals(theirs.index)
        assert ours.columns.equals(theirs.columns)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)
    # weights that do not matter would agree too
    assert np.asarray(theirs).std() > 1e-4


@pytest.mark.parametrize("name", ["get_normalized_expression", "posterior_predictive_sample"])
def test_minibatches_in_place_of_an_object_are_decoded_in_their_own_batches(pair, name):
    _, model = pair
    getter, minibatches = getattr(model, name), list(model._make_data_loader(model.adata))
    assert getter(dataloader=minibatches).shape == (150, 30)
    with pytest.raises(ValueError, match="`transform_batch` cannot be combined with `dataloader`"):
        getter(dataloader=minibatches, transform_batch="batch_1")
    if name == "get_normalized_expression":
        with pytest.raises(ValueError, match="`n_samples_overall` cannot be combined"):
            getter(dataloader=minibatches, n_samples_overall=7)


@pytest.mark.parametrize("name", ["get_elbo", "get_marginal_ll", "get_reconstruction_error"])
def test_options_of_the_data_loader_arrive(pair, name, monkeypatch):
    _, model = pair
    given, make = [], model._make_data_loader

    def watched(*args, **kwargs):
        given.append(kwargs.get("drop_last"))
        return make(*args, **kwargs)

    monkeypatch.setattr(model, "_make_data_loader", watched)
    options = {"n_mc_samples": 2} if name == "get_marginal_ll" else {}
    found = getattr(model, name)(
        batch_size=100, return_mean=False, data_loader_kwargs={"drop_last": True}, **options
    )
    found = found["reconstruction_loss"] if isinstance(found, dict) else found
    assert found.shape == (100,)
    assert given == [True]


@pytest.mark.parametrize("likelihood", ["normal", "nb_mixture"])
def test_importance_weights_that_scvi_cannot_compute_are_refused(adata, likelihood):
    model = untrained(BetaVI, adata, gene_likelihood=likelihood)
    with pytest.raises(NotImplementedError, match=f"{likelihood!r}.*Use weights='uniform'"):
        model.get_normalized_expression(n_samples_overall=20, weights="importance")


@pytest.mark.parametrize("options", [{}, {"truncation": True}, {"max_cells": 10}], ids=str)
def test_importance_weights_are_those_of_scvi(pair, same_draws, options):
    weights = []
    for model in pair:
        inferred, generated = model.module(
            next(iter(model._make_data_loader(model.adata))), compute_loss=False
        )
        px = generated["px"] if isinstance(model, SCVI) else generated["px"]["X"]
        z, cells = inferred["z"].detach(), np.arange(len(inferred["z"]))
        settings.seed = 0
        with torch.inference_mode():
            found = model.get_importance_weights(
                model.adata,
                cells,
                inferred["qz"],
                px,
                z,
                n_mc_samples=4,
                n_mc_samples_per_pass=2,
                **options,
            )
        weights.append(found)
    # in single precision, of log likelihoods of thousands of nats
    np.testing.assert_allclose(weights[1], weights[0], rtol=0.02, atol=1e-6)
    assert weights[0].std() > 1e-4


def test_several_batches_are_averaged(pair):
    model = pair[1:]
    (mean,) = both(model, transform_batch=["batch_0", "batch_1"])
    each = [both(model, transform_batch=name)[0] for name in ("batch_0", "batch_1")]
    np.testing.assert_allclose(mean, (each[0] + each[1]) / 2, rtol=1e-5)
    assert not np.allclose(*each, rtol=1e-2)
