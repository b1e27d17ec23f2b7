"""False signals of denoising on real cells: associations of shuffled genes.

Run with ``python -m benchmarks.false_signals [data set ...]``.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

import scvi

from benchmarks.denoising import read
from benchmarks.parallel import measured
from benchmarks.peers import AS_SCVI, REAL, UNSEEN
from betavi import BetaVI

if TYPE_CHECKING:
    import pandas as pd

DATA = ("pbmc donor A", "kang", "pancreas")
TRAINING = {
    "max_epochs": 100, "accelerator": "cpu", "show_progress": False, "plan_kwargs": AS_SCVI
}  # fmt: skip


def measure(name: str) -> pd.DataFrame:
    data = (REAL | UNSEEN)[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = read(data)
        scvi.settings.seed = 0
        BetaVI.setup_anndata(adata, batch_key=data.batch_key)
        return BetaVI(adata).check_false_signals(**TRAINING)


def main(*names: str) -> None:
    chosen = names or DATA
    for name, table in zip(chosen, measured(measure, [(n,) for n in chosen]), strict=True):
        print(f"\n{name}: share of significant gene pairs or genes, shuffled genes and others")
        print(table.round(3).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
