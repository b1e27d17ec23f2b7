"""Two processes of torchrun denoise into one store."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import anndata
import mudata
import numpy as np
import pytest

from betavi import BetaVI
from betavi.model.io.shared_writer import share_of

SCRIPT = """
import os, signal, sys
import scvi
from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome

QUIET = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
scvi.settings.seed = 0
adata = simulate_counts(n_cells=300, n_genes=20)
BetaVI.setup_anndata(adata)
model = BetaVI(adata, n_latent=4)
model.train(**QUIET)
mdata = simulate_multiome(n_cells=100)
JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
joint = JointVI(mdata, n_latent=4)
joint.train(**QUIET)
if os.environ.get("RANK") == "1" and sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
# processes may differ in the numbers that they drew before
scvi.settings.seed = int(os.environ.get("RANK", 0))
how = {"n_samples": 3, "batch_size": 32, "show_progress": False, "in_processes": "RANK" in os.environ}
model.denoise(out=f"{sys.argv[1]}.zarr", std_layer_added="std", **how)
joint.denoise(out=f"{sys.argv[1]}_joint.zarr", **how)
"""


def run(folder, name, *launcher):
    (folder / "script.py").write_text(SCRIPT)
    env = {key: value for key, value in os.environ.items() if "RANK" not in key}
    command = [sys.executable, *launcher, "script.py", name]
    return subprocess.run(
        command, cwd=folder, env=env | {"OMP_NUM_THREADS": "1"}, timeout=1500, check=False,
        capture_output=True, text=True,
    )  # fmt: skip


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.slow
def test_two_processes_write_the_values_of_one(tmp_path):
    for name, launcher in (("one", ()), ("two", TORCHRUN)):
        done = run(tmp_path, name, *launcher)
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = (anndata.read_zarr(tmp_path / f"{name}.zarr") for name in ("one", "two"))
    for layer in ("denoised", "std"):
        np.testing.assert_array_equal(two.layers[layer], one.layers[layer])
        assert (two.layers[layer] > 0).all()
    assert two.uns["betavi"] == one.uns["betavi"]
    one, two = (mudata.read_zarr(tmp_path / f"{name}_joint.zarr") for name in ("one", "two"))
    for name in ("rna", "adt"):
        np.testing.assert_array_equal(
            two.mod[name].layers["denoised"], one.mod[name].layers["denoised"]
        )
    assert not list(tmp_path.glob(".*betavi-new*"))


@pytest.mark.slow
def test_a_killed_process_leaves_no_store(tmp_path):
    done = run(tmp_path, "kill", *TORCHRUN)
    assert done.returncode != 0
    assert not (tmp_path / "kill.zarr").exists()


@pytest.mark.parametrize("n_processes", [1, 2, 3, 7])
@pytest.mark.parametrize("n_rows", [0, 1, 32, 33, 100, 1000])
def test_no_chunk_is_in_two_shares(n_rows, n_processes):
    shares = [share_of(n_rows, 32, rank, n_processes) for rank in range(n_processes)]
    rows = [row for share in shares for row in range(n_rows)[share]]
    assert rows == list(range(n_rows))
    full = [share for share in shares if share.stop > share.start]
    assert all(share.start % 32 == 0 for share in full)
    assert all(one.stop == other.start for one, other in pairwise(full))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "x.h5ad"}, "must be a zarr store"),
        ({}, "must be a zarr store"),
        ({"out": "x.zarr", "layer_added": None}, "layer_added=None writes sparse"),
        ({"out": "x.zarr", "drop_below": 0.1}, "`drop_below` writes sparse"),
        ({"out": "x.zarr"}, "this process is alone"),
    ],
)
def test_what_processes_cannot_write_together_is_refused(model, options, message, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=message):
        BetaVI.denoise(model, in_processes=True, **options)
