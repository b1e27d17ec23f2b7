"""One training of every β beside a training for each: the same cells, split and networks.

Both kinds have layer normalisation and a one-cycle learning rate, which suits both better than
scvi-tools' defaults. Run with ``python -m benchmarks.multi_rate [seed ...]``.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from benchmarks.peers import REAL, fit
from betavi import BetaVI

BETAS = (0.1, 0.3, 1, 3, 10, 30)
DATA = ("pbmc donor A", "pancreas")
SEPARATE_EPOCHS = 50
MULTI_RATE_EPOCHS = 62
"""As many as 1.5 times the seconds of a separate training allow: reading β costs a little."""

SEPARATE_PEAKS = (1e-2, 2e-2)
"""Of the learning rate; the better one counts, for each β."""

DRAWS = 20


def objective(model: BetaVI, beta: float) -> tuple[float, float]:
    """Return rate and distortion on the cells held out."""
    betas = None if model.module.dial.is_fixed else [beta]
    curve = model.rate_distortion(betas, indices=model.validation_indices, n_samples=DRAWS)
    return curve["rate"].item(), curve["distortion"].item()


def measure(name: str, seed: int) -> list[dict[str, object]]:
    data = REAL[name]
    adata, common = data.read(), {"enable_progress_bar": False}
    multi = fit(BetaVI, adata, data.batch_key, seed, {"beta": (BETAS[0], BETAS[-1])},
                max_epochs=MULTI_RATE_EPOCHS, **common)  # fmt: skip
    rows = []
    for beta in BETAS:
        found = {"multi-rate": (multi.seconds, *objective(multi.model, beta))}
        for peak in SEPARATE_PEAKS:
            arguments = {"beta": beta, "use_batch_norm": "none", "use_layer_norm": "both"}
            one = fit(BetaVI, adata, data.batch_key, seed, arguments, max_epochs=SEPARATE_EPOCHS,
                      plan_kwargs={"one_cycle": peak}, **common)  # fmt: skip
            found[f"separate, peak {peak:g}"] = (one.seconds, *objective(one.model, beta))
        for kind, (seconds, rate, distortion) in found.items():
            row = {"data": name, "seed": seed, "β": beta, "kind": kind, "seconds": seconds}
            row |= {"rate": rate, "distortion": distortion, "D + βR": distortion + beta * rate}
            rows.append(row)
            print(*row.values(), sep="\t", flush=True)
    return rows


def main(*seeds: int) -> None:
    rows = [row for name in DATA for seed in seeds or (0,) for row in measure(name, seed)]
    table = pd.DataFrame(rows)
    loss = table.pivot_table("D + βR", ["data", "β"], "kind", aggfunc="median", sort=False)
    best = loss.drop(columns="multi-rate").min(axis=1)
    loss["excess, %"] = 100 * (loss["multi-rate"] / best - 1)
    print("\nD + βR, nats per held-out cell; the excess is over the better separate training:")
    print(loss.round(2).to_string())
    print("\nMean excess over β, %:")
    print(loss["excess, %"].groupby("data", sort=False).mean().round(3).to_string())
    seconds = table.groupby(["data", "kind"], sort=False)["seconds"].median().unstack()  # noqa: PD010 - of a series
    one = seconds.drop(columns="multi-rate").median(axis=1)
    print("\nSeconds; ratio of the multi-rate training to one separate training:")
    print(seconds.assign(ratio=seconds["multi-rate"] / one).round(2).to_string())
    print(f"\nBoth held the same cells out; {DRAWS} draws. Seeds: {np.unique(table['seed'])}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
