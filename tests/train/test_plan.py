from __future__ import annotations

import subprocess
import sys
from functools import partial

import anndata
import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from scipy import sparse
from torch.utils._python_dispatch import TorchDispatchMode

from betavi import BetaVI, JointVI
from betavi.data.start_values import moments
from betavi.datasets import simulate_counts, simulate_multiome
from betavi.likelihoods import LIKELIHOODS
from tests.conftest import BRIEF

PLACES_OF_COMPILED = (
    "kernels.sparse", "kernels.layers", "data.loader", "train.start", "likelihoods._base"
)  # fmt: skip
STILL = BRIEF | {"max_epochs": 1, "plan_kwargs": {"lr": 0.0, "weight_decay": 0.0}}


def parameters(model):
    return {
        key: value.detach().clone().numpy()
        for key, value in model.module.likelihoods["X"].state_dict().items()
    }


@pytest.mark.parametrize("size_factor_key", [None, "size"])
@pytest.mark.parametrize(
    "gene_likelihood", sorted(LIKELIHOODS.keys() - {"lognormal", "nb_mixture"})
)
def test_a_fresh_decoder_starts_at_the_mean_of_the_training_cells(
    counts, size_factor_key, gene_likelihood
):
    BetaVI.setup_anndata(counts, size_factor_key=size_factor_key)
    model = BetaVI(counts, gene_likelihood=gene_likelihood)
    assert model.module.is_fresh
    model.train(**STILL)
    assert not model.module.is_fresh
    cells = model.train_indices
    x = counts.X.toarray()[cells]
    sizes = x.sum() if size_factor_key is None else counts.obs["size"].iloc[cells].sum()
    expected = (x.sum(axis=0) + 0.5) / sizes
    head = model.module.likelihoods["X"]
    # the softmax takes the pseudocounts back out of the sum
    scale = head.positive(head.unscaled.bias).detach().numpy()
    np.testing.assert_allclose(scale / scale.sum(), expected / expected.sum(), rtol=1e-4)
    if size_factor_key is not None:
        np.testing.assert_allclose(scale, expected, rtol=1e-4)


def test_a_fresh_mixture_of_backgrounds_starts_at_the_mean_of_the_training_cells(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    model = BetaVI(counts, gene_likelihood="nb_mixture")
    model.train(**STILL)
    x = counts.X.toarray()[model.train_indices]
    head = model.module.likelihoods["X"]
    background = head.background.exp().detach().numpy()
    foreground = background * (1 + np.log1p(head.unscaled.bias.exp().detach().numpy()))[:, None]
    # both are as likely, in every batch
    expected = (x.sum(axis=0) + 0.5) / len(x)
    mean = (background + foreground) / 2
    np.testing.assert_allclose(mean, expected[:, None].repeat(2, axis=1), rtol=1e-4)


@pytest.mark.parametrize("size_factor_key", [None, "size"])
def test_a_fresh_lognormal_decoder_starts_at_the_mean_of_the_logs(counts, size_factor_key):
    BetaVI.setup_anndata(counts, size_factor_key=size_factor_key)
    model = BetaVI(counts, gene_likelihood="lognormal")
    model.train(**STILL)
    x = counts.X.toarray()[model.train_indices]
    units = (
        1e4 / x.sum(axis=1)
        if size_factor_key is None
        else 1 / counts.obs["size"].to_numpy()[model.train_indices]
    )
    logs = np.log1p(x * units[:, None])
    found = parameters(model)
    np.testing.assert_allclose(found["unscaled.bias"], logs.mean(axis=0), rtol=1e-4)
    deviation = np.exp(found["dispersion.log_theta"])
    np.testing.assert_allclose(deviation, np.sqrt(0.4) * logs.std(axis=0), rtol=1e-4)


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
def test_every_dispersion_has_a_start(counts, dispersion):
    BetaVI.setup_anndata(counts, batch_key="batch", labels_key="cell_type")
    model = BetaVI(counts, dispersion=dispersion)
    before = parameters(model)
    model.train(**STILL)
    changed = {key for key, value in parameters(model).items() if (value != before[key]).any()}
    last = "dispersion.log_theta" + (".bias" if dispersion == "gene-cell" else "")
    assert changed == {"unscaled.bias", last}


def test_moments_are_those_of_the_training_cells_only(counts):
    BetaVI.setup_anndata(counts)
    manager = BetaVI._get_most_recent_anndata_manager(counts)
    cells = np.random.default_rng(0).permutation(300)[:200]
    x = counts.X.toarray()[cells].astype(float)
    size = x.sum(axis=1, keepdims=True)
    profile = (x.sum(axis=0) + 0.5) / x.sum()
    expected = (
        profile,
        (size * profile).mean(axis=0),
        np.square(size * profile).mean(axis=0),
        np.square(x - size * profile).mean(axis=0),
        np.log1p(1e4 * x / size).mean(axis=0),
        np.log1p(1e4 * x / size).var(axis=0),
    )
    for found, value in zip(moments(manager, "X", cells), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-4)


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_matrix, np.asarray])
def test_moments_do_not_depend_on_the_container_or_the_block(counts, container, monkeypatch):
    BetaVI.setup_anndata(counts)
    manager = BetaVI._get_most_recent_anndata_manager(counts)
    before = moments(manager, "X", np.arange(300))
    counts.X = container(counts.X.toarray())
    monkeypatch.setattr("betavi._blocks.DENSE_CELLS", 7)
    for found, value in zip(moments(manager, "X", np.arange(300)), before, strict=True):
        torch.testing.assert_close(found, value)


def test_counts_without_latent_structure_start_at_their_dispersion():
    """Negative binomial counts around one profile: moments give theta, but for what z would take."""
    rng = np.random.default_rng(0)
    theta, mean = 2.0, 20.0
    x = rng.negative_binomial(theta, theta / (theta + mean), size=(20_000, 10))
    adata = anndata.AnnData(sparse.csr_matrix(x.astype(np.float32)))
    adata.obs["size"] = 1.0
    BetaVI.setup_anndata(adata, size_factor_key="size", keep_empty_cells=True)
    manager = BetaVI._get_most_recent_anndata_manager(adata)
    head = BetaVI(adata, gene_likelihood="nb").module.likelihoods["X"]
    log_theta = head.log_theta_at(moments(manager, "X", np.arange(20_000)))
    np.testing.assert_allclose(log_theta.exp(), theta / 0.4, rtol=0.1)


def test_trained_and_loaded_weights_are_kept(counts, model, tmp_path):
    trained = parameters(model)
    model.train(**STILL)
    np.testing.assert_equal(parameters(model), trained)
    model.save(tmp_path / "model")
    loaded = BetaVI.load(tmp_path / "model", counts)
    loaded.train(**STILL)
    np.testing.assert_equal(parameters(loaded), trained)
    query = counts[:60].copy()
    query.obs["batch"] = "new"
    mapped = BetaVI.load_query_data(query, model)
    mapped.train(**STILL)
    np.testing.assert_equal(parameters(mapped), trained)


def test_saved_before_training_is_still_fresh(counts, tmp_path):
    BetaVI.setup_anndata(counts)
    BetaVI(counts).save(tmp_path / "model")
    loaded = BetaVI.load(tmp_path / "model", counts)
    before = parameters(loaded)
    loaded.train(**STILL)
    assert (parameters(loaded)["unscaled.bias"] != before["unscaled.bias"]).any()


def test_resuming_from_a_checkpoint_keeps_its_weights(counts, tmp_path, monkeypatch):
    # scvi-tools saves checkpoints of its own beside the one asked for
    monkeypatch.setattr(scvi.settings, "logging_dir", str(tmp_path / "log"))
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    keep = ModelCheckpoint(dirpath=tmp_path, filename="last")
    model.train(**BRIEF, callbacks=[keep], enable_checkpointing=True)
    resumed = BetaVI(counts)
    # no epoch is left to train
    resumed.train(**BRIEF, ckpt_path=tmp_path / "last.ckpt")
    np.testing.assert_equal(parameters(resumed), parameters(model))


@pytest.mark.parametrize("size_factor_key", [None, "size"])
def test_training_cells_without_a_single_count_are_refused(counts, size_factor_key):
    counts.X = sparse.csr_matrix(counts.shape, dtype=np.float32)
    BetaVI.setup_anndata(counts, keep_empty_cells=True, size_factor_key=size_factor_key)
    model = BetaVI(counts)
    with pytest.raises(ValueError, match="None of the 270 training cells has any count"):
        model.train(**BRIEF)
    assert not model.is_trained


def test_starting_at_the_moments_helps_a_short_run(counts):
    held_out = {}
    for fresh in (True, False):
        scvi.settings.seed = 0
        BetaVI.setup_anndata(counts)
        model = BetaVI(counts)
        drawn = parameters(model)
        model.train(**STILL | {"plan_kwargs": STILL["plan_kwargs"] | {"from_moments": fresh}})
        stayed = all(np.array_equal(drawn[key], value) for key, value in parameters(model).items())
        assert stayed is not fresh
        # nor is a second run taken for a first
        assert not model.module.is_fresh
        model.train(**BRIEF | {"max_epochs": 5})
        held_out[fresh] = float(model.get_elbo(indices=model.validation_indices))
    assert held_out[True] > held_out[False] + 1


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions_train_to_the_same(counts, precision):
    elbos = {}
    for asked in ("32-true", precision):
        scvi.settings.seed = 0
        BetaVI.setup_anndata(counts)
        model = BetaVI(counts)
        model.train(**BRIEF | {"max_epochs": 4}, precision=asked)
        elbos[asked] = model.history["elbo_train"]["elbo_train"].iloc[-1]
    assert elbos[precision] == pytest.approx(elbos["32-true"], rel=0.01)


@pytest.mark.parametrize(
    ("asked", "peak"),
    [
        ({}, 1e-2),
        ({"plan_kwargs": {"lr": 1e-3}}, None),
        ({"plan_kwargs": {"one_cycle": 5e-3}}, 5e-3),
        ({"early_stopping": True}, None),
        ({"early_stopping": True, "plan_kwargs": {"one_cycle": 5e-3}}, 5e-3),
    ],
)
def test_the_learning_rate_rises_and_falls_unless_somebody_says_otherwise(counts, asked, peak):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    model.train(**BRIEF | asked)
    assert model.trainer.lightning_module.one_cycle == peak


@pytest.mark.parametrize(("n_cells", "epochs"), [(500, 30), (10_000, 30), (20_000, 15), (10**6, 8)])
def test_usual_number_of_epochs(counts, n_cells, epochs):
    BetaVI.setup_anndata(counts)
    assert BetaVI(counts).default_epochs(n_cells) == epochs


@pytest.mark.parametrize(
    ("n_cells", "epochs"), [(500, 100), (10_000, 100), (50_000, 20), (10**6, 8)]
)
def test_usual_number_of_epochs_of_several_modalities(n_cells, epochs):
    mdata = simulate_multiome(n_cells=50, n_genes=10, n_peaks=0, n_proteins=4)
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    assert JointVI(mdata).default_epochs(n_cells) == epochs


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 1.0},
        {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"},
        {"plan_kwargs": {"optimizer": "AdamW"}},
    ],
)
def test_compiled_and_plain_steps_arrive_at_the_same(counts, monkeypatch, options):
    elbos = []
    for path in ("compiled", "plain"):
        if path == "plain":
            for module in PLACES_OF_COMPILED:
                monkeypatch.setattr(f"betavi.{module}.compiled", None)
        scvi.settings.seed = 0
        BetaVI.setup_anndata(counts)
        model = BetaVI(counts)
        model.train(**BRIEF | {"max_epochs": 3} | options)
        elbos.append(model.history["elbo_train"]["elbo_train"].iloc[-1])
    assert elbos[0] == pytest.approx(elbos[1], rel=1e-4)


@pytest.mark.slow
def test_a_compiled_module_trains_to_the_same(counts):
    elbos = []
    for asked in (False, True):
        scvi.settings.seed = 0
        BetaVI.setup_anndata(counts)
        model = BetaVI(counts)
        model.train(**BRIEF, plan_kwargs={"compile": asked})
        elbos.append(model.history["elbo_train"]["elbo_train"].iloc[-1])
    # a compiled graph may draw other units to drop
    assert elbos[0] == pytest.approx(elbos[1], rel=0.01)


WITHOUT_NUMBA = """
import sys, warnings
import rich.pretty, scanpy, scvi, torch
# a part of scvi-tools needs it, too
for name in [name for name in sys.modules if name.split(".")[0] in ("numba", "llvmlite")]:
    del sys.modules[name]
sys.modules["numba"] = sys.modules["llvmlite"] = None
from betavi import BetaVI
from betavi.datasets import simulate_counts
torch.set_num_threads(1)
for form in ("csr", "dense"):
    adata = simulate_counts(n_cells=300, n_genes=40, seed=1)
    adata.X = adata.X if form == "csr" else adata.X.toarray()
    scvi.settings.seed = 0
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    assert any("pip install numba" in str(w.message) for w in caught), caught
    model.get_latent_representation(), model.get_elbo()
    print(form, float(model.history["elbo_train"]["elbo_train"].iloc[-1]))
"""


@pytest.mark.slow
def test_everything_works_where_numba_cannot_be_imported():
    run = [sys.executable, "-c", WITHOUT_NUMBA]
    printed = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    plain = dict(line.split() for line in printed.splitlines() if line.startswith(("csr", "dense")))
    adata = simulate_counts(n_cells=300, n_genes=40, seed=1)
    scvi.settings.seed = 0
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata)
    model.train(**BRIEF)
    expected = model.history["elbo_train"]["elbo_train"].iloc[-1]
    assert {form: float(elbo) for form, elbo in plain.items()} == {
        "csr": pytest.approx(expected, rel=1e-4),
        "dense": pytest.approx(expected, rel=1e-4),
    }


class Waiting(TorchDispatchMode):
    """Take down every operation for whose result a host has to wait for a GPU."""

    NAMES = ("_local_scalar_dense", "nonzero", "item", "is_nonzero", "masked_select", "equal")

    def __init__(self):
        super().__init__()
        self.seen, self.n_operations = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1])
        self.n_operations += 1
        if name in self.NAMES or by_mask:
            self.seen.append(name)
        return function(*args, **kwargs or {})


def single(gene_likelihood):
    adata = simulate_counts(n_cells=300, n_genes=40, seed=1)
    BetaVI.setup_anndata(adata, batch_key="batch")
    return BetaVI(adata, gene_likelihood=gene_likelihood)


def joint():
    mdata = simulate_multiome(n_cells=300)
    likelihoods = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}
    JointVI.setup_mudata(mdata, likelihoods, batch_key="batch")
    return JointVI(mdata)


WATCHED = {name: partial(single, name) for name in LIKELIHOODS} | {"joint": joint}


@pytest.mark.parametrize("name", WATCHED)
def test_a_step_on_a_gpu_waits_for_nothing(monkeypatch, name):
    for module in PLACES_OF_COMPILED:
        monkeypatch.setattr(f"betavi.{module}.compiled", None)
    monkeypatch.setattr("betavi.kernels.plain.waits_for_sizes", lambda _: False)
    # which looks at its codes on a CPU only
    by_table = lambda codes, n_codes: torch.eye(n_codes, dtype=torch.long)[codes]  # noqa: E731
    monkeypatch.setattr(torch.nn.functional, "one_hot", by_table)
    model, waiting = WATCHED[name](), Waiting()
    plan = model._training_plan_cls
    original = plan.training_step

    def watched(self, batch, batch_idx):
        with waiting:
            return original(self, batch, batch_idx)

    monkeypatch.setattr(plan, "training_step", watched)
    model.train(**BRIEF)
    assert waiting.n_operations > 100
    assert waiting.seen == []


def test_a_model_that_is_trained_again_is_in_training_mode(counts):
    BetaVI.setup_anndata(counts)
    model, seen = BetaVI(counts), []
    model.module.register_forward_hook(lambda module, *_: seen.append(module.training))
    for _ in range(2):
        model.train(**BRIEF)
    assert seen
    assert all(seen)
