"""Any argument of any public method: it works, or an error names it, and no object changes."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import re
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.exceptions import MisconfigurationException
from scvi.model.base import UnsupervisedTrainingMixin

from betavi import BetaVI, EffectVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome, simulate_perturbations
from betavi.module import Options
from betavi.nn import Architecture
from betavi.train import TrainingPlan
from tests.conftest import BRIEF

MOST_SECONDS = 2.0
REFUSALS = (
    ValueError, TypeError, KeyError, IndexError, NotImplementedError, RuntimeError,
    MisconfigurationException,
)  # fmt: skip

# words that name an argument without its own name
CONCEPTS = {
    "transform_batch": "batch", "batch": "batch", "group1": "group", "group2": "group",
    "groupby": "obs[", "modality": "modality", "modalities": "modality", "source": "modality",
    "target": "modality", "gene_list": "feature", "region_list": "feature",
    "protein_list": "feature", "latent": "Latent position",
    "layer_added": "layer", "std_layer_added": "layer", "start": "osition", "end": "osition",
}  # fmt: skip

# scvi-tools reads these
NOT_CHECKED = {
    "batchid1", "batchid2", "kwargs", "data_loader_kwargs", "importance_weighting_kwargs",
}  # fmt: skip

# scvi-tools' own methods, the primitives of LatentModel, training, and files of models
NOT_OURS = {
    "differential_abundance", "get_importance_weights", "get_aggregated_posterior",
    "get_batch_representation", "load_query_data", "prepare_query_anndata", "prepare_query_mudata",
    "setup_anndata", "setup_mudata", "load", "load_registry", "save", "view_setup_args",
    "convert_legacy_save", "train", "rescue",
    "minify_adata", "minify_mudata", "sibling", "suggest_beta", "cross_validate_denoising",
    "check_false_signals", "diagnose", "rate_distortion", "latent_density", "default_epochs",
    "evaluate", "report",
}  # fmt: skip
REQUIRED = {
    "generate": {"n_cells": 4},
    "interpolate": {"start": "cell_0", "end": "cell_1", "n_steps": 4},
    "differential_expression": {"groupby": "cell_type", "group1": "type_0"},
    "translate": {"source": "rna", "target": "adt"},
    "predictability": {"source": "rna", "target": "adt", "indices": range(120)},
    "transfer_labels": {"adata": None, "labels_key": "cell_type", "indices": range(20)},
    "get_latent_library_size": {"give_mean": False},
    "get_marginal_ll": {"n_mc_samples": 5},
    "predict": {"perturbation": "P0", "dose": 1.0},
}
QUIET = {"show_progress": False, "silent": True}
ODD_VALUES = st.one_of(
    st.sampled_from(
        [
            None, True, False, "", "nowhere", "X", "batch_0", "cell_0", b"x", 1e30, -1, 0, 1, 3,
            2.5, 10**30, float("nan"), float("inf"), 1 + 2j, [], (), {}, set(), [None], ["cell_0"],
            ["gene_0"], ["gene_0", "gene_0"], [0.5], [True], slice(0, 3), range(3), object,
            np.array([0, 1]), np.array([], dtype=int), np.zeros((2, 2)), np.array(["gene_1"]),
            np.datetime64("2020-01-01"), pd.Index(["gene_0"]), pd.Series([1, 2]), lambda x: x,
            {"rna": 1.0}, {"rna": "x"}, iter(["gene_0"]), "posterior", "mean", "latent", "change", "aggregate",
        ]
    ),
    st.integers(-3, 400),
    st.floats(allow_nan=True),
    st.text(max_size=4),
    st.lists(st.integers(-500, 500), max_size=4),
    st.lists(st.text(max_size=3), max_size=3),
)  # fmt: skip


def trained(cls, data, setup, *args, **kwargs):
    setup(data, *args, **kwargs)
    model = cls(data, n_latent=3, n_hidden=16)
    model.train(**BRIEF)
    return model


@pytest.fixture(scope="module")
def models():
    scvi.settings.seed = 0
    adata = simulate_counts(n_cells=120, n_genes=20, n_batches=2, seed=0)
    mdata = simulate_multiome(
        n_cells=120, n_genes=20, n_peaks=15, n_proteins=6, n_batches=2, seed=0
    )
    likelihoods = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}
    if "cell_type" not in mdata.obs:
        mdata.obs["cell_type"] = ["type_0", "type_1"] * 60
    screen = simulate_perturbations(120, 20, 2, 1, n_contexts=2, doses=(1, 10))
    screen.obs_names = [f"cell_{i}" for i in range(120)]
    keys = {"perturbation_key": "perturbation", "context_key": "context", "dose_key": "dose"}
    return {
        "EffectVI": trained(EffectVI, screen, EffectVI.setup_anndata, **keys),
        "BetaVI": trained(BetaVI, adata, BetaVI.setup_anndata, batch_key="batch"),
        "JointVI": trained(JointVI, mdata, JointVI.setup_mudata, likelihoods, batch_key="batch"),
    }


def fingerprint(data):
    """Return a digest of everything that a user can see in an object."""
    digest = hashlib.sha256()
    for part in [data, *(() if isinstance(data, AnnData) else data.mod.values())]:
        digest.update(repr((part.is_view, part.shape)).encode())
        for table in (part.obs, part.var):
            digest.update(repr(list(zip(table.columns, table.dtypes, strict=True))).encode())
            digest.update(pd.util.hash_pandas_object(table.astype(str)).to_numpy().tobytes())
        digest.update(
            repr(sorted((str(key), repr(value)) for key, value in part.uns.items())).encode()
        )
        matrices = [
            (f"{name} {key}", values)
            for name in ("obsm", "varm", "obsp", "varp", "layers")
            for key, values in dict(getattr(part, name, None) or {}).items()
        ]
        if isinstance(part, AnnData):
            matrices.append(("X", part.X))
        for name, values in sorted(matrices, key=lambda pair: pair[0]):
            dense = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
            digest.update(f"{name} {type(values)} {dense.dtype} {dense.shape}".encode())
            digest.update(np.ascontiguousarray(dense).tobytes())
    return digest.hexdigest()


def methods_of(model):
    """Return the public methods that answer, with the names of their arguments."""
    cls = type(model)
    names = {
        name
        for name, value in vars(cls).items()
        if inspect.isfunction(value) and not name.startswith("_") and name not in NOT_OURS
    }
    return {
        name: list(inspect.signature(getattr(model, name)).parameters) for name in sorted(names)
    }


def check_call(call, name, argument, value, data, names):
    """The call works, or it raises an error that says one of the names, and ``data`` is as before."""
    before, start, said = fingerprint(data), time.perf_counter(), None
    try:
        call()
    except REFUSALS as error:
        said = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    if said is not None:
        # an unknown key of a dictionary of options is named itself
        keys = {f"'{key}'" for key in value} if isinstance(value, dict) else set()
        is_said = re.search(rf"\b{argument}\b", said, re.IGNORECASE)
        named = is_said or argument in NOT_CHECKED or any(word in said for word in names | keys)
        assert named, f"{name}({argument}={value!r}): {said}"
        assert fingerprint(data) == before, f"{name}({argument}={value!r})"
    # a run of many tests at once slows each down; tiny minibatches are the user's choice
    is_fast = seconds < 5 * MOST_SECONDS or argument == "batch_size"
    assert is_fast, f"{name}({argument}={value!r}) took {seconds:.1f} s"


def check(models, folder, data):
    model = models[data.draw(st.sampled_from(sorted(models)), label="model")]
    methods = methods_of(model)
    method = data.draw(st.sampled_from(sorted(methods)), label="method")
    argument = data.draw(st.sampled_from(methods[method]), label="argument")
    value = data.draw(ODD_VALUES, label="value")
    # an iterator can be read only once, so its minibatches are not looked at first
    assume(not (argument == "dataloader" and isinstance(value, Iterator)))
    arguments = {name: value for name, value in QUIET.items() if name in methods[method]}
    arguments |= REQUIRED.get(method, {})
    if method == "raw_counts" and len(model.modalities) > 1:
        arguments["modality"] = "rna"
    arguments[argument] = value
    read = model.adata
    if "adata" in methods[method] and argument != "adata" and "dataloader" not in arguments:
        # objects that scvi-tools registers on the way
        how = data.draw(st.sampled_from(sorted(OTHERS)), label="object")
        read = OTHERS[how](model.adata)
        arguments |= {} if read is model.adata else {"adata": read}
    names = {CONCEPTS.get(argument, argument)}
    check_call(lambda: getattr(model, method)(**arguments), method, argument, value, read, names)


def unregistered(data):
    for key in [key for key in data.uns if key.startswith("_scvi")]:
        del data.uns[key]
    return data


OTHERS = {
    "its own": lambda data: data,
    "copy": lambda data: unregistered(data.copy()),
    "subset": lambda data: unregistered(data[:50].copy()),
    "view": lambda data: unregistered(data.copy())[:100],
}

LIKELIHOODS = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}
SMALL = {"n_hidden": 8, "n_latent": 2}
ONCE = {"max_epochs": 1, "enable_progress_bar": False}


def parameters_of(*functions):
    names = [name for each in functions for name in inspect.signature(each).parameters]
    left_out = {
        "self",
        "cls",
        "adata",
        "mdata",
        "registry",
        "args",
        "kwargs",
        "module",
        "kl_weight",
    }
    # set by the model, or passed on to PyTorch and Lightning, which name them
    left_out |= {
        "given_size",
        "devices",
        "accelerator",
        "trainer_kwargs",
        "optimizer_creator",
        "compile",
        "compile_kwargs",
    }
    return [name for name in dict.fromkeys(names) if name not in left_out]


def building(models, kind):
    """Return the arguments of a call that builds something, a function of one of them, and data."""
    data = models[kind].adata
    cls, setup = type(models[kind]), getattr(type(models[kind]), f"setup_{SETUPS[kind]}")
    required = REQUIRED_SETUP.get(kind, {})
    copy = data.copy()
    # scvi-tools takes a copy for the object itself
    copy.uns.pop("_scvi_uuid")

    def train(**changed):
        cls(data, **SMALL).train(**ONCE | changed)

    return {
        "setup": (parameters_of(setup), lambda **changed: setup(copy, **required | changed), copy),
        "init": (
            parameters_of(cls.__init__, Architecture, Options),
            lambda **changed: cls(data, **SMALL | changed),
            data,
        ),
        "train": (parameters_of(cls.train, UnsupervisedTrainingMixin.train), train, data),
        "plan": (
            parameters_of(TrainingPlan.__init__, scvi.train.TrainingPlan.__init__),
            lambda **changed: train(plan_kwargs=changed),
            data,
        ),
    }


SETUPS = {"BetaVI": "anndata", "JointVI": "mudata", "EffectVI": "anndata"}
REQUIRED_SETUP = {
    "JointVI": {"likelihoods": LIKELIHOODS}, "EffectVI": {"perturbation_key": "perturbation"},
}  # fmt: skip
ENORMOUS = 500


def check_building(models, data):
    kind = data.draw(st.sampled_from(sorted(models)), label="model")
    calls = building(models, kind)
    step = data.draw(st.sampled_from(sorted(calls)), label="step")
    arguments, call, read = calls[step]
    argument = data.draw(st.sampled_from(arguments), label="argument")
    value = data.draw(ODD_VALUES, label="value")
    # networks of any size and runs of any length are allowed
    is_size = argument.startswith("n_") or argument == "max_epochs"
    assume(not (is_size and isinstance(value, int) and value > ENORMOUS))
    # columns are named by where they are looked for; extreme options of training ruin the weights
    names = {"obs", "layer"} if step == "setup" else set()
    names |= {"loss became", "not finite"} if step in ("train", "plan") else set()
    check_call(lambda: call(**{argument: value}), f"{kind} {step}", argument, value, read, names)


OPTIONS = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
    "database": None,
    "derandomize": True,
}


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """Relative paths are written here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=40, **OPTIONS)
@given(data=st.data())
def test_an_argument_works_or_is_named(models, in_folder, data):
    check(models, in_folder, data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=1000, **OPTIONS)
@given(data=st.data())
def test_a_thousand_arguments_work_or_are_named(models, in_folder, data):
    check(models, in_folder, data)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=40, **OPTIONS)
@given(data=st.data())
def test_an_argument_of_setup_and_training_works_or_is_named(models, in_folder, data):
    check_building(models, data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=500, **OPTIONS)
@given(data=st.data())
def test_hundreds_of_arguments_of_setup_and_training_work_or_are_named(models, in_folder, data):
    check_building(models, data)


# numbers of double precision that single precision cannot hold, or only as zero
EXTREME = [5e-324, 1e-40, 1e39, -1e39, np.float64(1.7e308), 10**400]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(SETUPS))
def test_extreme_numbers_work_or_are_named(models, in_folder, kind):
    model = models[kind]
    for method, arguments in methods_of(model).items():
        fixed = {name: value for name, value in QUIET.items() if name in arguments}
        fixed |= REQUIRED.get(method, {})
        fixed |= {"modality": "rna"} if method == "raw_counts" and kind == "JointVI" else {}
        call = getattr(model, method)
        for argument, value in itertools.product(arguments, EXTREME):
            names = {CONCEPTS.get(argument, argument)}
            changed = fixed | {argument: value}
            check_call(partial(call, **changed), method, argument, value, model.adata, names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(SETUPS))
def test_extreme_numbers_of_setup_and_training_work_or_are_named(models, in_folder, kind):
    for step, (arguments, call, data) in building(models, kind).items():
        names = {"obs", "layer"} if step == "setup" else {"loss became", "not finite"}
        for argument, value in itertools.product(arguments, EXTREME):
            # the networks of that size would not fit into memory
            if isinstance(value, float) or not (
                argument.startswith("n_") or argument == "max_epochs"
            ):
                check_call(partial(call, **{argument: value}), step, argument, value, data, names)
