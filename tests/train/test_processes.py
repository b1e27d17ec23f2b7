"""Two processes on the CPU train as one process on twice the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch

from betavi import BetaVI
from betavi.data.shares import Shares, in_shares
from betavi.objective.terms import constrained
from tests.conftest import BRIEF

HEAD = """
import json, os, signal, sys, time
import numpy as np, scvi, torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch.distributions import Normal
from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome

# so that steps are the same in one process and in two
EXACT = {"dropout_rate": 0, "use_batch_norm": "none", "n_latent": 4}
RANK = int(os.environ.get("LOCAL_RANK", 0))

def counts(n_latent=4, n_cells=300, **options):
    adata = simulate_counts(n_cells=n_cells, n_genes=40, seed=1)
    BetaVI.setup_anndata(adata, batch_key="batch")
    return BetaVI(adata, n_latent=n_latent, **options)

def joint(**options):
    mdata = simulate_multiome(n_cells=300)
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    return JointVI(mdata, n_latent=4, **options)

def train(model, n, batch, strategy="ddp", **options):
    options = {"enable_progress_bar": False, "check_val_every_n_epoch": 1} | options
    several = {"devices": n, "strategy": strategy} if n > 1 else {}
    model.train(batch_size=batch // n, accelerator="cpu", **several, **options)

def result(model):
    weights = [part.detach().flatten().double() for part in model.module.state_dict().values()]
    return {
        "history": {key: list(map(float, table.iloc[:, 0])) for key, table in model.history.items()},
        "weights": torch.cat(weights).tolist(),
        "beta": model.module.settled_beta,
        "condition": model.module.beta_condition.beta,
        "trained": model.is_trained,
        "train": [int(cell) for cell in model.train_indices],
        "validation": [int(cell) for cell in model.validation_indices],
        "z": model.get_latent_representation().tolist(),
    }
# a shell that runs in the background lets its children ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)
"""

COMPARED = """
EXACT_CASES = {
    "plain": ({}, {}),
    "uneven": ({}, {"train_size": 271 / 300, "batch": 100}),
    "free bits": ({}, {"free_bits": 0.5}),
    "capacity": ({"beta": 5.0}, {"capacity": 3.0}),
    "target": ({}, {"target_rate": 2.0, "max_epochs": 20}),
    "scvi": ({}, {"plan_kwargs": {"n_epochs_kl_warmup": 3}}),
    "rescue": ({"beta": 50.0}, {"collapse_guard": "rescue", "max_epochs": 130}),
}
CASES = {
    "default": (counts, {}, {"max_epochs": 30}),
    "range": (counts, {"beta": (0.1, 10.0)}, {"max_epochs": 30, "free_bits": 0.1}),
    "autoencoder": (counts, {"latent_distribution": "deterministic"}, {"max_epochs": 30}),
    "vamp": (counts, {"prior": "vamp"}, {"max_epochs": 30}),
    "joint": (joint, {}, {"max_epochs": 60}),
    "stopped": (counts, {}, {"max_epochs": 60, "plan_kwargs": {"lr": 1e-12}}),
}

if __name__ == "__main__":
    n, found, usual = int(sys.argv[1]), {}, Normal.rsample
    for name, (options, how) in EXACT_CASES.items():
        scvi.settings.seed = 0
        how = {"max_epochs": 4, "batch": 272} | how
        Normal.rsample = lambda self, shape=torch.Size(): self.loc.expand(self._extended_shape(shape))
        if name == "uneven":
            # every epoch has the same minibatches
            torch.randperm = lambda n, generator=None, order=torch.arange: order(n)
        model = counts(**EXACT | options)
        train(model, n, **how)
        found[name] = result(model)
    Normal.rsample = usual
    for name, (make, options, how) in CASES.items():
        scvi.settings.seed = 0
        model = make(**options)
        if name == "stopped":
            how = how | {"callbacks": [EarlyStopping("elbo_validation", min_delta=5.0, patience=2)]}
        train(model, n, 64, **how)
        found[name] = result(model)
    with open(f"{sys.argv[2]}-{RANK}.json", "w") as file:
        json.dump(found, file)
"""


def started(tmp_path, body, *arguments):
    """Start a script, in a process without the variables of another run."""
    script = tmp_path / "script.py"
    script.write_text(HEAD + dedent(body))
    env = {key: value for key, value in os.environ.items() if "RANK" not in key}
    env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)], cwd=tmp_path, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(tmp_path, body, *arguments):
    """Run a script; return its exit code and what all its processes printed."""
    process = started(tmp_path, body, *arguments)
    try:
        output, _ = process.communicate(timeout=1500)
    finally:
        process.kill()
    return process.returncode, output


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Return the results of one process, and of both processes of a run."""
    folder = tmp_path_factory.mktemp("compared")
    for n in (1, 2):
        code, output = run(folder, COMPARED, n, f"run{n}")
        assert code == 0, output
    names = ("run1-0", "run2-0", "run2-1")
    found = [json.loads((folder / f"{name}.json").read_text()) for name in names]
    # nothing is left in the user's folder but scvi-tools' own log
    assert {path.name for path in folder.iterdir()} <= {
        "script.py", "scvi_log", *(f"{name}.json" for name in names),
    }  # fmt: skip
    return found


EXACT = ["plain", "uneven", "free bits", "capacity", "target", "scvi", "rescue"]


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_the_steps_of_two_processes_are_those_of_one(compared, case):
    one, two, _ = (found[case] for found in compared)
    # double rounding grows over the 130 steps of the rescue
    close = {"rtol": 2e-3 if case == "rescue" else 1e-4, "atol": 2e-3 if case == "rescue" else 1e-4}
    np.testing.assert_allclose(two["weights"], one["weights"], **close)
    for key, values in one["history"].items():
        # the information of all dimensions is of other cells
        if key not in {"mutual_information", "active_dimensions"}:
            np.testing.assert_allclose(two["history"][key], values, rtol=close["rtol"], err_msg=key)
    assert two["beta"] == pytest.approx(one["beta"], rel=1e-4)
    assert len(one["history"]["elbo_validation"]) > 3


@pytest.mark.slow
def test_the_compared_options_were_in_force(compared):
    one = compared[0]
    assert one["target"]["beta"] != 1.0
    assert one["rescue"]["beta"] < 50.0
    assert one["capacity"]["weights"] != one["free bits"]["weights"] != one["plain"]["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["default", "range", "autoencoder", "vamp", "joint"])
def test_two_processes_reach_the_loss_of_one(compared, case):
    one, two, _ = (found[case]["history"] for found in compared)
    for key in ("elbo_train", "elbo_validation"):
        assert two[key][-1] == pytest.approx(one[key][-1], rel=0.02 if case == "range" else 0.01)


@pytest.mark.slow
def test_early_stopping_by_a_callback_ends_both_processes(compared):
    for found in compared:
        assert 1 < len(found["stopped"]["history"]["elbo_validation"]) < 60


@pytest.mark.slow
@pytest.mark.parametrize("case", [*EXACT, "default", "range", "autoencoder", "vamp", "joint"])
def test_both_processes_have_the_same_model(compared, case):
    _, first, second = (found[case] for found in compared)
    assert first == second
    assert first["trained"]
    assert sorted(first["train"] + first["validation"]) == list(range(300))


REAL = """
import anndata
if __name__ == "__main__":
    scvi.settings.seed = 0
    adata = anndata.read_h5ad(sys.argv[3])
    BetaVI.setup_anndata(adata, batch_key="group_id")
    model = BetaVI(adata)
    train(model, int(sys.argv[1]), 128, max_epochs=15)
    if RANK == 0:
        with open(sys.argv[2], "w") as file:
            json.dump({key: float(table.iloc[-1, 0]) for key, table in model.history.items()}, file)
"""


@pytest.mark.slow
def test_two_processes_reach_the_loss_of_one_on_real_counts(real, tmp_path):
    real("kang_muscat.h5ad")
    path = Path(os.environ["BETAVI_DATA_DIR"]).resolve() / "kang_muscat.h5ad"
    found = []
    for n in (1, 2):
        code, output = run(tmp_path, REAL, n, f"{n}.json", path)
        assert code == 0, output
        found.append(json.loads((tmp_path / f"{n}.json").read_text()))
    for key in ("elbo_train", "elbo_validation"):
        assert found[1][key] == pytest.approx(found[0][key], rel=0.01)


UNSEEDED = """
if __name__ == "__main__":
    model = counts()
    train(model, 2, 64, strategy=sys.argv[1], max_epochs=3)
    with open(f"{sys.argv[1]}-{RANK}.json", "w") as file:
        json.dump(result(model), file)
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn", "ddp_find_unused_parameters_true"])
def test_a_run_without_a_seed_has_one_split_and_one_model(tmp_path, strategy):
    code, output = run(tmp_path, UNSEEDED, strategy)
    assert code == 0, output
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert len(found) == (1 if strategy == "ddp_spawn" else 2)
    assert all(one == found[0] for one in found)
    one = found[0]
    assert sorted(one["train"] + one["validation"]) == list(range(300))
    assert len(one["history"]["elbo_train"]) == 3
    assert one["history"]["beta"] == [one["history"]["beta"][0], 1.0, 1.0]
    assert np.isfinite(one["z"]).all()


SPAWNED = """
if __name__ == "__main__":
    model = counts(beta=50.0, **EXACT)
    train(model, 2, 272, strategy="ddp_spawn", max_epochs=130, collapse_guard="rescue")
    print("BETA", model.history["beta"].iloc[-1, 0], model.module.settled_beta,
          model.module.beta_condition.beta, model.module.beta_condition.range[0],
          model._module_kwargs["beta"])
"""


@pytest.mark.slow
def test_a_spawned_run_returns_the_beta_of_its_rescues(tmp_path):
    code, output = run(tmp_path, SPAWNED)
    assert code == 0, output
    betas = [float(word) for word in output.split("BETA ")[1].split()[:5]]
    assert betas[0] < 50.0
    assert betas == [pytest.approx(betas[0])] * 5


BROKEN = """
class At(Callback):
    def on_train_epoch_start(self, trainer, plan):
        if trainer.current_epoch == 1 and trainer.global_rank == int(sys.argv[3]):
            if sys.argv[2] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if sys.argv[2] == "raise":
                raise ValueError("of one process")
            if sys.argv[2] == "nan":
                next(plan.module.parameters()).data.fill_(float("nan"))
            if sys.argv[2] == "interrupt":
                os.kill(os.getppid() if sys.argv[1] == "ddp_spawn" else os.getpid(), signal.SIGINT)
                time.sleep(3)

if __name__ == "__main__":
    model = counts()
    try:
        train(model, 2, 64, strategy=sys.argv[1], max_epochs=4, callbacks=[At()])
    except Exception as error:
        print(f"{RANK} {type(error).__name__}: {error}", flush=True)
        sys.exit(3)
    print(f"{RANK} TRAINED {model.is_trained} {len(model.history['beta'])}", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_a_killed_process_ends_the_run_with_its_number(tmp_path, strategy):
    code, output = run(tmp_path, BROKEN, strategy, "kill", 1)
    assert code == 3, output
    assert "0 LostProcessError: Process 1 of 2" in output
    assert "killed by SIGKILL" in output
    assert "start the script again" in output


@pytest.mark.slow
def test_a_killed_first_process_ends_the_other(tmp_path):
    _, output = run(tmp_path, BROKEN, "ddp", "kill", 0)
    assert "1 LostProcessError: Process 0 of 2" in output


@pytest.mark.slow
def test_an_error_in_one_process_ends_the_other(tmp_path):
    code, output = run(tmp_path, BROKEN, "ddp", "raise", 1)
    assert code == 3, output
    assert "1 ValueError: of one process" in output
    assert "0 LostProcessError: Process 1 of 2" in output


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_a_loss_that_is_not_finite_in_one_process_is_explained_in_all(tmp_path, strategy):
    code, output = run(tmp_path, BROKEN, strategy, "nan", 1)
    assert code == 3, output
    assert "0 NonFiniteLossError: The loss became nan" in output
    assert ("1 NonFiniteLossError" in output) == (strategy == "ddp")
    assert "LostProcessError" not in output


@pytest.mark.slow
def test_an_interrupted_run_keeps_the_model_of_the_first_process(tmp_path):
    code, output = run(tmp_path, BROKEN, "ddp", "interrupt", 0)
    assert code == 0, output
    assert "interrupted in epoch 2 of 4" in output
    assert "0 TRAINED True 1" in output
    assert "1 TRAINED" not in output


@pytest.mark.slow
def test_an_interrupted_spawned_run_ends_with_an_error(tmp_path):
    code, output = run(tmp_path, BROKEN, "ddp_spawn", "interrupt", 1)
    assert code == 3, output
    assert "0 RuntimeError: Training was interrupted" in output


SEVERAL = {"devices": 2, "strategy": "ddp_spawn"} | BRIEF


@pytest.fixture
def untrained(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    return BetaVI(counts, n_latent=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stopping": True}, "switches `early_stopping` off"),
        ({"enable_checkpointing": True}, "`enable_checkpointing` needs a single process"),
        ({"overfit_batches": 1}, "`overfit_batches` needs a single process"),
        ({"plan_kwargs": {"on_step": True}}, "`on_step` needs a single process"),
        ({"train_size": 299 / 300}, r"1 validation cell\(s\) cannot be divided"),
        ({"train_size": 297 / 300, "batch_size": 49}, "in each of 2 processes leave a last"),
        ({"train_size": 277 / 300, "batch_size": 23}, "a process without cells in the last step"),
    ],
)
def test_what_cannot_work_is_refused_before_training(untrained, options, message):
    with pytest.raises(ValueError, match=message):
        untrained.train(**SEVERAL | options)
    assert not untrained.is_trained


def test_a_run_of_scripts_needs_a_script(untrained, monkeypatch):
    import __main__

    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setattr(__main__, "__spec__", None)
    with pytest.raises(ValueError, match="has no script"):
        untrained.train(**SEVERAL | {"strategy": "ddp"})


def test_spawned_processes_need_a_copy_of_the_model(counts, tmp_path):
    import anndata

    counts.write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    BetaVI.setup_anndata(backed, batch_key="batch")
    with pytest.raises(TypeError, match="Use strategy='ddp'"):
        BetaVI(backed).train(**SEVERAL)


@pytest.mark.parametrize("n_processes", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_shares_are_the_minibatches_of_one_process(n_processes, drop_last):
    one = Shares(100, 12, drop_last, 0, 1, seed=3)
    shares = [
        Shares(100, 12 // n_processes, drop_last, rank, n_processes, seed=3)
        for rank in range(n_processes)
    ]
    for _ in range(2):
        whole, parts = list(one), list(zip(*shares, strict=True))
        assert len(whole) == len(parts) == len(one) == len(shares[0])
        for cells, divided in zip(whole, parts, strict=True):
            torch.testing.assert_close(torch.cat(divided), cells)
    assert sorted(torch.cat(whole).tolist()) == list(range(100)) or drop_last


@pytest.mark.parametrize("n_cells", [2, 3, 64, 65, 129, 300])
@pytest.mark.parametrize("n_processes", [1, 2])
def test_every_held_out_cell_is_seen_once(n_cells, n_processes):
    shares = [in_shares(n_cells, 32, rank, n_processes) for rank in range(n_processes)]
    assert len({len(share) for share in shares}) == 1
    minibatches = [cells for share in shares for cells in share]
    assert sorted(np.concatenate(minibatches)) == list(range(n_cells))
    assert all(0 < len(cells) <= 32 for cells in minibatches)


def test_constraints_use_the_mean_that_is_passed():
    rates = torch.tensor([[0.1, 3.0], [0.3, 1.0]])
    far = constrained(rates, nats=0.5, cell_mean=lambda values: values.mean(dim=0) + 1)
    torch.testing.assert_close(far, rates.sum(dim=1))
    below = constrained(rates, capacity=3.0, cell_mean=lambda values: values.mean(dim=0) + 9)
    torch.testing.assert_close(below, rates.sum(dim=1) - 3.0)
