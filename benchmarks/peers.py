"""Same training of a model and its peers on the same real cells."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata
import numpy as np
import scanpy as sc
import scvi
import torch

if TYPE_CHECKING:
    from anndata import AnnData

THREADS = 2


def quietly(n_threads: int = THREADS) -> None:
    """Silence libraries, and set the number of threads of PyTorch."""
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(n_threads)


def processor() -> str:
    """Return the name of the processor, and of its generation if LLVM knows it."""
    name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1].strip()
    try:
        from llvmlite.binding import get_host_cpu_name
    except ImportError:
        return name
    return f"{name} ({get_host_cpu_name()})"


AS_SCVI = {"lr": 1e-3}
"""Plan arguments for the constant learning rate of scvi-tools instead of a one-cycle rate."""

ELBO_DRAWS = 10


def real_folder() -> Path:
    """Return the folder of real counts, or end the benchmark with a message."""
    folder = os.environ.get("BETAVI_DATA_DIR")
    if not folder:
        print("Skipped: BETAVI_DATA_DIR is not set. Set it to the folder of real counts.")
        # not a failure, which would stop the following benchmarks
        sys.exit(0)
    return Path(folder)


def gibibytes() -> float:
    """Return the peak memory of this process only; getrusage would include its parent."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 2**20


def forget_peak() -> None:
    """Reset the peak memory of this process to its current memory."""
    Path("/proc/self/clear_refs").write_text("5")


class DataSet(NamedTuple):
    """File of real counts, column of its batches, and number of highly variable genes to use."""

    file: str
    batch_key: str | None = None
    n_top_genes: int | None = None

    def read(self) -> AnnData:
        """Read the counts from BETAVI_DATA_DIR."""
        adata = anndata.read_h5ad(real_folder() / self.file)
        if self.n_top_genes is not None:
            sc.pp.highly_variable_genes(
                adata, n_top_genes=self.n_top_genes, flavor="seurat_v3", subset=True
            )
        return adata[:, np.asarray(adata.X.sum(axis=0)).ravel() > 0].copy()


REAL = {
    "pbmc donor A": DataSet("pbmc_frozen_donorA.h5ad", n_top_genes=2000),
    "kang": DataSet("kang_stim_ctrl_2000.h5ad", batch_key="stim"),
    "pancreas": DataSet("pancreas_3696x2000.h5ad"),
}
"""Data sets whose held-out cells were used to choose the start values of training."""

UNSEEN = {
    "zeisel": DataSet("zeisel_1464x1000.h5ad"),
    "RNAmix": DataSet("RNAmix_celseq2_sortseq.h5ad", batch_key="batch", n_top_genes=2000),
    "norman": DataSet("norman19_mcfaline23_counts.h5ad"),
}
"""Data sets that were not used for any choice."""


class Fit(NamedTuple):
    """Trained model, seconds of training, and nats per held-out cell."""

    model: Any
    seconds: float
    negative_elbo: float
    distortion: float


def fit(
    cls: type,
    adata: AnnData,
    batch_key: str | None,
    seed: int,
    arguments: dict[str, Any] | None = None,
    **train: Any,
) -> Fit:
    """Train ``cls`` with SCVI's defaults, except for ``arguments``, and score it on held-out cells.

    Validation cells, epochs, schedule and seed are the same for all classes.
    """
    torch.set_num_threads(THREADS)
    scvi.settings.seed = seed
    adata = adata.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cls.setup_anndata(adata, batch_key=batch_key)
        model = cls(adata, n_latent=10, **(arguments or {}))
        start = time.perf_counter()
        model.train(**{"accelerator": "cpu", **train})
    seconds = time.perf_counter() - start
    held_out = model.validation_indices
    elbos = [-float(model.get_elbo(indices=held_out)) for _ in range(ELBO_DRAWS)]
    losses = [
        float(model.get_reconstruction_error(indices=held_out)["reconstruction_loss"])
        for _ in range(ELBO_DRAWS)
    ]
    return Fit(model, seconds, float(np.mean(elbos)), float(np.mean(losses)))
