"""Effect of the number of epochs on the ELBO of unseen cells and on the realism of samples.

As in ``benchmarks.realism``, models are trained on half of the cells and judged by the other half.
``python -m benchmarks.epochs [data set ...]`` takes four minutes for both data sets.
"""

from __future__ import annotations

import sys

import pandas as pd

from benchmarks.peers import quietly
from benchmarks.realism import Set, halves, of_betavi, read, trained
from betavi import BetaVI
from betavi.metrics import realism

EPOCHS = (10, 30, 100, 300)
"""30 epochs is the default for this number of cells."""

MEASURES = ["auc", "energy", "lfc_slope", "lfc_r"]


def compare(data: Set) -> pd.DataFrame:
    """Return scores on unseen cells, by number of epochs."""
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
        print(f"\n{name}: trained on {data.adata.n_obs // 2} cells, judged by the other half")
        print(compare(data).round(3).to_string(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
