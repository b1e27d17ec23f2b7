"""One training for a range of β, compared with separate trainings: same cells, split and networks.

Both kinds use layer normalisation and a one-cycle learning rate, which are better for both than the
defaults of scvi-tools. Run with ``python -m benchmarks.multi_rate [seed ...]``.
"""

from __future__ import annotations

import logging
import sys

import pandas as pd

from benchmarks.peers import REAL, UNSEEN, fit
from betavi import BetaVI

BETAS = (0.1, 0.3, 1, 3, 10, 30)
DATA = ("pbmc donor A", "pancreas", "zeisel")
"""The network for β was chosen on held-out cells of the first two."""

SEPARATE = {"use_batch_norm": "none", "use_layer_norm": "both"}
SEPARATE_EPOCHS, SEPARATE_PEAK = 50, 1e-2
"""A peak of 0.02 was worse at a low β on donor A, by up to 3 nats, and otherwise equal."""

MULTI_RATE_EPOCHS = 62
"""Number of epochs that takes 1.5 times the seconds of one separate training."""

DRAWS = 20


def objective(model: BetaVI, beta: float) -> tuple[float, float]:
    """Return rate and distortion of the held-out cells."""
    betas = None if model.module.beta_condition.is_fixed else [beta]
    curve = model.rate_distortion(betas, indices=model.validation_indices, n_samples=DRAWS)
    return curve["rate"].item(), curve["distortion"].item()


def measure(name: str, seed: int) -> list[dict[str, object]]:
    data = (REAL | UNSEEN)[name]
    adata, quiet = data.read(), {"enable_progress_bar": False}
    every = {"beta": (BETAS[0], BETAS[-1])}
    multi = fit(BetaVI, adata, data.batch_key, seed, every, max_epochs=MULTI_RATE_EPOCHS, **quiet)
    rows = []
    for beta in BETAS:
        one = fit(BetaVI, adata, data.batch_key, seed, {"beta": beta} | SEPARATE,
                  max_epochs=SEPARATE_EPOCHS, plan_kwargs={"one_cycle": SEPARATE_PEAK}, **quiet)  # fmt: skip
        for kind, result in (("multi-rate", multi), ("separate", one)):
            rate, distortion = objective(result.model, beta)
            row = {"data": name, "seed": seed, "β": beta, "kind": kind, "seconds": result.seconds}
            row |= {"rate": rate, "distortion": distortion, "D + βR": distortion + beta * rate}
            rows.append(row)
            print(*row.values(), sep="\t", flush=True)
    return rows


def main(*seeds: int) -> None:
    logging.disable(logging.INFO)
    rows = [row for name in DATA for seed in seeds or (0,) for row in measure(name, seed)]
    table = pd.DataFrame(rows)
    loss = table.pivot_table("D + βR", ["data", "β"], "kind", aggfunc="median", sort=False)
    loss["excess, %"] = 100 * (loss["multi-rate"] / loss["separate"] - 1)
    print("\nD + βR, nats per held-out cell:")
    print(loss.round(2).to_string())
    print("\nMean excess over β, %:")
    print(loss["excess, %"].groupby("data", sort=False).mean().round(2).to_string())
    seconds = table.pivot_table("seconds", "data", "kind", aggfunc="median", sort=False)
    print("\nSeconds of the training for all β and of one separate training:")
    print(seconds.assign(ratio=seconds["multi-rate"] / seconds["separate"]).round(2).to_string())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
