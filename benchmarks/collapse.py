"""Accuracy of diagnose() on simulated cells with known factors. ``python -m benchmarks.collapse``.

A dimension is active in truth if it carries more than 0.1 nats about the factors, in cells that
neither training nor diagnose() has seen. diagnose() does not know the factors.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import PolynomialFeatures

from benchmarks.parallel import measured
from benchmarks.peers import AS_SCVI
from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.diagnostics import ACTIVE, UNUSED

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from betavi.diagnostics import CollapseReport

N_CELLS, N_FRESH = 2000, 2000


SPLIT = {"train_size": 0.8, "enable_progress_bar": False}
THETA = 0.01
"""Inverse dispersion at which nearly all differences are noise."""


def as_it_is(model: BetaVI) -> None:
    """Leave the model unchanged."""


def frozen_encoder(model: BetaVI) -> None:
    """Keep the encoder at its initial weights."""
    model.module.z_encoders.requires_grad_(False)


def noisy_likelihood(model: BetaVI) -> None:
    """Fix the dispersion of the likelihood so that all counts are noise."""
    model.train(max_epochs=1, **SPLIT)
    log_theta = model.module.likelihoods["X"].dispersion.log_theta
    log_theta.requires_grad_(False).fill_(float(np.log(THETA)))


@dataclass(frozen=True)
class Scenario:
    """Simulation, model and training, and the cause of collapse that is expected, if any."""

    cause: str
    cells: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    batch_key: str | None = None
    plant: Callable[[BetaVI], None] = as_it_is


CONTINUOUS = {"n_types": 1, "n_batches": 1, "n_genes": 200, "spread_within_type": 1.0}
SCENARIOS = {
    "3 factors, 20 dimensions": Scenario("too_many_dimensions", {"n_factors": 3}),
    "5 factors, 20 dimensions": Scenario("too_many_dimensions", {"n_factors": 5}),
    "10 factors, 20 dimensions": Scenario("too_many_dimensions", {"n_factors": 10}),
    "β = 0.01": Scenario("too_many_dimensions", {"n_factors": 3}, {"beta": 0.01}),
    "β = 0.1": Scenario("too_many_dimensions", {"n_factors": 3}, {"beta": 0.1}),
    "β = 3": Scenario("too_many_dimensions", {"n_factors": 5}, {"beta": 3.0}),
    "β = 10": Scenario("beta_too_high", {"n_factors": 5}, {"beta": 10.0}),
    "β = 30": Scenario("beta_too_high", {"n_factors": 5}, {"beta": 30.0}),
    "β = 100": Scenario("beta_too_high", {"n_factors": 5}, {"beta": 100.0}),
    "decoder given the labels": Scenario(
        "covariates_explain", {"n_factors": 5, "n_types": 8, "spread_within_type": 0.0}, batch_key="cell_type"
    ),
    "frozen encoder": Scenario("lagging_encoder", {"n_factors": 5}, plant=frozen_encoder),
    "noisy likelihood": Scenario("dispersion_absorbs", {"n_factors": 5}, plant=noisy_likelihood),
    "few counts": Scenario("too_few_counts", {"n_factors": 5, "library_size": 2.0}),
    "warm-up of 1,000 epochs": Scenario(
        "unfinished_warmup", {"n_factors": 3}, {"beta": 30.0},
        {"plan_kwargs": {"n_epochs_kl_warmup": 1000, **AS_SCVI}},
    ),
    "healthy, 3 of 3": Scenario("none", {"n_factors": 3}, {"n_latent": 3}),
    "healthy, 5 of 5": Scenario("none", {"n_factors": 5}, {"n_latent": 5}),
    "healthy, strong batches": Scenario(
        "none", {"n_factors": 5, "n_batches": 4, "spread_of_batches": 1.0}, {"n_latent": 5},
        batch_key="batch",
    ),
    "healthy, 100 cells held out": Scenario(
        "none", {"n_factors": 3}, {"n_latent": 3}, {"train_size": 0.95}
    ),
}  # fmt: skip


def prepare(scenario: Scenario, seed: int) -> tuple[BetaVI, AnnData]:
    """Return a trained model, and fresh cells with the same genes."""
    both = simulate_counts(n_cells=N_CELLS + N_FRESH, seed=seed, **CONTINUOUS | scenario.cells)
    cells, fresh = both[:N_CELLS].copy(), both[N_CELLS:].copy()
    scvi.settings.seed = seed
    BetaVI.setup_anndata(cells, batch_key=scenario.batch_key, keep_empty_cells=True)
    model = BetaVI(cells, **{"n_latent": 20} | scenario.model)
    scenario.plant(model)
    model.train(max_epochs=60, **{"plan_kwargs": AS_SCVI} | SPLIT | scenario.train)
    return model, fresh


def active_in_truth(model: BetaVI, fresh: AnnData) -> np.ndarray:
    """Return True for dimensions that follow the factors, ``(n_latent,)``."""
    loc, variance = model.get_latent_representation(fresh, return_dist=True)
    factors = PolynomialFeatures(2).fit_transform(fresh.obsm["z"])
    half = len(loc) // 2
    follows = LinearRegression().fit(factors[:half], loc[:half]).predict(factors[half:])
    of_anything, noise = loc[half:].var(axis=0), variance.mean(axis=0)
    of_factors = np.maximum(of_anything - np.square(loc[half:] - follows).mean(axis=0), 0)
    return np.log1p(of_factors / noise) / 2 > ACTIVE


def measure(name: str, seed: int) -> dict[str, Any]:
    scenario = SCENARIOS[name]
    model, fresh = prepare(scenario, seed)
    report: CollapseReport = model.diagnose(show_progress=False)
    truth = active_in_truth(model, fresh)
    unused = report.dimensions["status"].isin(UNUSED).to_numpy()
    first = report.causes[0].name if report.causes else "none"
    expected = "none" if truth.all() else scenario.cause
    return {
        "scenario": name, "seed": seed, "inactive": int((~truth).sum()),
        "called": int(unused.sum()), "right": int((unused & ~truth).sum()), "verdict": report.verdict, "first cause": first,
        "cause": first == expected, "factors": report.spectrum.n_factors,
        "gap": report.amortisation_gap / (report.amortisation_gap + sum(report.explained.values())),
    }  # fmt: skip


def main(*seeds: int) -> None:
    rows = []
    tasks = [(name, seed) for name in SCENARIOS for seed in seeds or range(10)]
    for row in measured(measure, tasks):
        rows.append(row)
        print(*row.values(), sep="\t", flush=True)
    table = pd.DataFrame(rows)
    sums = table.groupby("scenario", sort=False)[["inactive", "called", "right", "cause"]].sum()
    sums["precision"] = sums["right"] / sums["called"]
    sums["recall"] = sums["right"] / sums["inactive"]
    sums["models"] = table.groupby("scenario", sort=False).size()
    print(f"\n{sums.round(3).to_string()}")
    healthy = table["scenario"].str.startswith("healthy")
    alarms = (healthy & (table["verdict"] != "healthy")).sum()
    print(f"\nfalse alarms in {healthy.sum()} healthy models: {alarms}")
    print(f"right cause in {table['cause'].sum()} of {len(table)} models")
    precision, recall = (sums["right"].sum() / sums[name].sum() for name in ("called", "inactive"))
    print(f"\nprecision {precision:.3f}, recall {recall:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
