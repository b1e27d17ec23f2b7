"""Seconds and memory of each ability, and their growth with the number of cells.

Each number of cells runs in its own process, on simulated counts of 2,000 genes. Data sets above ten
thousand cells repeat the same ten thousand cells. Run ``python -m benchmarks.costs [cells ...]``
without other load on the machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.peers import THREADS, forget_peak, gibibytes, processor, quietly
from benchmarks.scaling import exponent, read, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CELLS = (1000, 10_000, 100_000)
N_GENES, N_PROTEINS = 2000, 100
N_GENERATED, N_STEPS = 10_000, 50
QUIET = {"show_progress": False}
BRIEF = {"accelerator": "cpu", "enable_progress_bar": False}

Call = tuple[str, "Callable[[], Any]"]


def of_one_modality(folder: str) -> Iterator[Call]:
    """Yield the abilities of BetaVI with calls, beside SCVI's getter."""
    from scvi.model import SCVI

    from betavi import BetaVI

    adata = read(Path(folder), N_GENES)
    BetaVI.setup_anndata(adata, keep_empty_cells=True)
    model = BetaVI(adata)
    # the loops are compiled before the first measurement
    BetaVI(adata).train(1, limit_train_batches=2, **BRIEF)
    yield "train", partial(model.train, **BRIEF)
    yield "get_latent_representation", model.get_latent_representation
    expression = partial(model.get_normalized_expression, return_numpy=True)
    yield "get_normalized_expression", expression
    yield "denoise", partial(model.denoise, layer_added="denoised", **QUIET)
    yield "diagnose", partial(model.diagnose, **QUIET)
    yield "support", partial(model.support, **QUIET)
    yield "generate, 10,000 cells", partial(model.generate, N_GENERATED, **QUIET)
    ends = adata.obs_names[[0, 1]]
    yield "interpolate", partial(model.interpolate, *ends, n_steps=N_STEPS, **QUIET)
    yield "cross_validate_denoising", partial(model.cross_validate_denoising, **QUIET)
    of_range = BetaVI(adata, beta=(0.1, 10))
    yield "train on a range of β", partial(of_range.train, **BRIEF)
    yield "rate_distortion", partial(of_range.rate_distortion, **QUIET)
    SCVI.setup_anndata(adata)
    theirs = SCVI(adata)
    theirs.train(1, limit_train_batches=2, **BRIEF)
    name = "SCVI's get_normalized_expression"
    yield name, partial(theirs.get_normalized_expression, return_numpy=True)


def of_two_modalities(folder: str) -> Iterator[Call]:
    """Yield the abilities of JointVI with calls."""
    from anndata import AnnData
    from mudata import MuData

    from betavi import JointVI

    rna = read(Path(folder), N_GENES)
    rng = np.random.default_rng(0)
    proteins = rng.poisson(20, (rna.n_obs, N_PROTEINS)).astype(np.float32)
    mdata = MuData({"rna": rna, "adt": AnnData(proteins, obs=rna.obs[[]])})
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    model = JointVI(mdata)
    yield "JointVI: train, 2 epochs", partial(model.train, 2, **BRIEF)
    yield "JointVI: translate", partial(model.translate, "rna", "adt", **QUIET)


def measure(folder: str) -> dict[str, dict[str, float]]:
    """Return seconds and GiB above the start of each call."""
    quietly()
    rows = {}
    for calls in (of_one_modality, of_two_modalities):
        for name, call in calls(folder):
            forget_peak()
            before, start = gibibytes(), time.perf_counter()
            call()
            rows[name] = {"s": time.perf_counter() - start, "GiB": gibibytes() - before}
            print(name, rows[name], file=sys.stderr, flush=True)
    return rows


def main(*n_cells: str) -> None:
    tables = {}
    for n in map(int, n_cells or CELLS):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), n, N_GENES)
            command = [sys.executable, "-m", "benchmarks.costs", folder]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        tables[n] = pd.DataFrame(json.loads(answer.splitlines()[-1])).T
        print(f"\n{n} cells\n{tables[n].round(2).to_string()}", flush=True)
    table = pd.concat(tables, axis=1)
    seconds = table.xs("s", axis=1, level=1)
    by_cells = [pd.DataFrame({"cells": seconds.columns, "s": row}) for row in seconds.to_numpy()]
    table["exponent"] = [exponent(rows, "s", "cells") for rows in by_cells]
    print(f"\n{table.round(2).to_string()}\n\n{processor()}, {THREADS} threads")


if __name__ == "__main__":
    if len(sys.argv) == 2 and Path(sys.argv[1]).is_dir():
        print(json.dumps(measure(sys.argv[1])))
    else:
        main(*sys.argv[1:])
