"""What more epochs give and take: the ELBO of unseen cells, and how real samples are.

As in ``benchmarks.realism``, half of the cells train a model and the other half judge, but one
model for each length of training. ``python -m benchmarks.epochs [set ...]``, four minutes for both.
"""

from __future__ import annotations

import sys

import pandas as pd

from benchmarks.peers import quietly
from benchmarks.realism import Set, halves, of_betavi, read, trained
from betavi import BetaVI
from betavi.metrics import realism

EPOCHS = (10, 30, 100, 300)
"""The second is the default of so few cells."""

MEASURES = ["auc", "energy", "lfc_slope", "lfc_r"]


def compare(data: Set) -> pd.DataFrame:
    """Return what unseen cells say of models by their epochs."""
    trained_on, unseen = halves(data)
    BetaVI.setup_anndata(unseen, batch_key=data.batch_key)
    generated, nats = {}, {}
    for epochs in EPOCHS:
        model = trained(BetaVI, trained_on, epochs)
        name = f"{epochs} epochs"
        nats[name] = -float(model.get_elbo(unseen))
        generated[name] = of_betavi(trained_on, model, "cells")["cells"]
    table = realism(unseen, generated, groupby="type")[MEASURES]
    table.insert(0, "-ELBO", pd.Series(nats))
    return table


def main(*names: str) -> None:
    quietly()
    for name in names or ("pancreas", "kang"):
        data = read(name)
        print(f"\n{name}: trained on {data.adata.n_obs // 2} cells, judged by the others")
        print(compare(data).round(3).to_string(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
