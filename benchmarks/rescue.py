"""Benefit of rescue(), compared with doing nothing and with training again.

``python -m benchmarks.rescue``: models are collapsed in three ways. The likelihood is for test cells,
which neither training nor the choice of a remedy has seen. Training again has as many epochs as a
rescue in total, at β = 1, with a constant learning rate and with the default one-cycle rate, which a
rescue uses at its end.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pandas as pd
import scvi
import torch

from benchmarks.parallel import measured
from benchmarks.peers import AS_SCVI, REAL
from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.model.collapse.remedies import FINISHING_PEAK

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

EPOCHS, BUDGET, DRAWS = 30, 80, 100

SPLIT = {"train_size": 0.8, "validation_size": 0.1}


def simulated(seed: int) -> AnnData:
    return simulate_counts(
        n_cells=2000, n_factors=5, n_types=1, n_batches=1, spread_within_type=1.0, seed=seed
    )


DATA: dict[str, Callable[[int], AnnData]] = {
    "simulation": simulated,
    "pbmc donor A": lambda _: REAL["pbmc donor A"].read(),
}


def too_high_a_beta(adata: AnnData) -> BetaVI:
    """Train at a β above any signal."""
    model = BetaVI(adata, beta=300.0)
    fit(model)
    return model


def idle_encoder(adata: AnnData) -> BetaVI:
    """Train the decoder with an encoder that stays at its initial weights."""
    model = BetaVI(adata)
    model.module.z_encoders.requires_grad_(False)
    fit(model)
    model.module.z_encoders.requires_grad_(True)
    return model


def deaf_decoder(adata: AnnData) -> BetaVI:
    """Train, and then set the decoder's weights of z and the encoder's outputs to 0."""
    model = BetaVI(adata)
    fit(model)
    n_latent = model.module.options.n_latent
    with torch.no_grad():
        first = next(p for p in model.module.decoders.parameters() if p.ndim == 2)
        first[:, :n_latent] = 0
        model.module.z_encoders["X"].mean.weight.zero_()
        model.module.z_encoders["X"].mean.bias.zero_()
        model.module.z_encoders["X"].variance.weight.zero_()
        model.module.z_encoders["X"].variance.bias.zero_()
    return model


WAYS = {f.__name__: f for f in (too_high_a_beta, idle_encoder, deaf_decoder)}


def fit(model: BetaVI, max_epochs: int = EPOCHS, **kwargs: Any) -> None:
    quiet = {"collapse_guard": False, "enable_progress_bar": False}
    model.train(max_epochs, **{"plan_kwargs": AS_SCVI} | quiet | SPLIT | kwargs)


def likelihood(model: BetaVI) -> float:
    torch.manual_seed(0)
    return float(model.get_marginal_ll(indices=model.test_indices, n_mc_samples=DRAWS))


def trained_again(adata: AnnData, seed: int) -> dict[str, float]:
    found = {}
    for name, plan in {"again": AS_SCVI, "again, one cycle": {"one_cycle": FINISHING_PEAK}}.items():
        scvi.settings.seed = seed
        model = BetaVI(adata)
        fit(model, BUDGET, plan_kwargs=plan)
        found[name] = likelihood(model)
    return found


def measure(name: str, seed: int) -> list[dict[str, Any]]:
    adata = DATA[name](seed)
    # the selection of genes sets one thread per core, which slows parallel processes
    torch.set_num_threads(1)
    BetaVI.setup_anndata(adata, keep_empty_cells=True)
    again = trained_again(adata, seed)
    task = {"data": name, "seed": seed}
    return [task | {"way": way} | again | rescued(adata, way, seed) for way in WAYS]


def rescued(adata: AnnData, way: str, seed: int) -> dict[str, Any]:
    scvi.settings.seed = seed
    model = WAYS[way](adata)
    row: dict[str, Any] = {"nothing": likelihood(model)}
    report = model.rescue(max_epochs=BUDGET, show_progress=False)
    return row | {
        "rescue": likelihood(model), "kept": report.chosen, "before": report.before.verdict,
        "used": report.after.active_dimensions,
    }  # fmt: skip


def main(*words: str) -> None:
    """Run the named data sets and seeds, by default all of them."""
    rows = []
    names = [word for word in words if word in DATA] or list(DATA)
    seeds = [int(word) for word in words if word.isdigit()] or range(10)
    tasks = [(name, seed) for name in names for seed in seeds]
    for some in measured(measure, tasks):
        rows += some
        for row in some:
            print(*row.values(), sep="\t", flush=True)
    table = pd.DataFrame(rows)
    table["over nothing"] = table["rescue"] - table["nothing"]
    table["no worse"] = table["rescue"] >= table["again"]
    table["no worse than one cycle"] = table["rescue"] >= table["again, one cycle"]
    grouped = table.groupby(["data", "way"], sort=False)
    means = grouped[["nothing", "again", "again, one cycle", "rescue"]].mean()
    means = means.join(grouped[["no worse", "no worse than one cycle"]].sum())
    means["of"] = grouped.size()
    print("\nLog-likelihood, nats per test cell, mean over seeds:")
    print(means.round(2).to_string())
    print(f"\nworse than nothing: {(table['over nothing'] < 0).sum()} of {len(table)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
