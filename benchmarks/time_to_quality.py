"""Seconds until the held-out ELBO at which SCVI stops improving is reached.

SCVI runs twice: with its defaults, and with its best learning rate, schedule and minibatch size,
found here by a search. BetaVI runs with its defaults for an increasing number of epochs. The shortest
run that reaches the ELBO counts, from the start to the end of train(). The time of SCVI is for the
epochs until it reaches the ELBO, without validation.

Run ``python -m benchmarks.time_to_quality [data set ...]`` without other load on the machine. It
takes about an hour. The argument ``best`` leaves out SCVI's defaults, the longest part.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata
import mudata
import numpy as np
import pandas as pd
import scvi
from torch.optim.lr_scheduler import OneCycleLR

from benchmarks.peers import ELBO_DRAWS, REAL, quietly, real_folder
from benchmarks.speed import Clock
from betavi import BetaVI

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from anndata import AnnData

CHECKED_EVERY = 5
PEAKS, RUNS = (5e-3, 1.5e-2), (20, 40, 80)
"""Peaks of the learning rate and numbers of epochs of one-cycle runs of SCVI."""

OTHER_BATCHES = ((64, 1), (256, 1), (256, 2))
"""Minibatch sizes to try with the best cycle, and factors of the number of epochs."""

PLANNED = (3, 5, 7, 10, 15, 20, 30)
"""Numbers of epochs of BetaVI, tried in this order."""

TIE = 0.5
"""Difference in nats per cell that is within the variation between draws of z."""


class OneCycle(scvi.train.TrainingPlan):
    """SCVI's plan with a one-cycle learning rate, and a warm-up of a quarter of the run."""

    def __init__(self, module: Any, *, peak: float, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)
        self.peak = peak

    def configure_optimizers(self) -> dict[str, Any]:
        """Add the one-cycle schedule."""
        configured: dict[str, Any] = super().configure_optimizers()
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = OneCycleLR(configured["optimizer"], self.peak, total_steps=steps)
        return configured | {"lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class TunedSCVI(scvi.model.SCVI):
    """SCVI trained with :class:`OneCycle`."""

    _training_plan_cls = OneCycle


class Reached(NamedTuple):
    """Result of a run: nats per held-out cell, epochs, seconds and settings."""

    nats: float
    epochs: int
    seconds: float
    how: str


def sets() -> Iterator[tuple[str, AnnData, str | None]]:
    """Yield the data sets with their names and batch columns."""
    for name, data in REAL.items():
        yield name, data.read(), data.batch_key
    rna = mudata.read_h5mu(real_folder() / "pbmc10k_6855x4000.h5mu")["rna"]
    rna = anndata.AnnData(rna.X, obs=rna.obs[[]], var=rna.var[[]])
    yield "pbmc10k", rna[:, np.asarray(rna.X.sum(axis=0)).ravel() > 0].copy(), None


def held_out(model: Any) -> float:
    indices = model.validation_indices
    return float(np.mean([-float(model.get_elbo(indices=indices)) for _ in range(ELBO_DRAWS)]))


def trained(cls: type, adata: AnnData, batch_key: str | None, **options: Any) -> Any:
    scvi.settings.seed = 0
    cls.setup_anndata(adata, batch_key=batch_key)
    model = cls(adata)
    model.train(**{"accelerator": "cpu", "enable_progress_bar": False} | options)
    return model


def by_default(adata: AnnData, batch_key: str | None) -> Reached:
    """Train SCVI with its defaults, and find the epoch at which it stopped improving."""
    clock = Clock()
    model = trained(
        scvi.model.SCVI, adata, batch_key, callbacks=[clock], check_val_every_n_epoch=CHECKED_EVERY
    )
    curve = model.history["elbo_validation"]["elbo_validation"].astype(float)
    # the first epoch that ties with the best, because later epochs do not improve
    epochs = int(curve.index[curve <= curve.min() + TIE][0]) + 1
    per_epoch = np.median(clock.seconds) * -(-len(model.train_indices) // 128)
    return Reached(float(curve.min()), epochs, epochs * per_epoch, "defaults")


def cycle(
    adata: AnnData, batch_key: str | None, peak: float, epochs: int, batch_size: int = 128
) -> Reached:
    """Train SCVI with a one-cycle learning rate."""
    start = time.perf_counter()
    plan = {"peak": peak, "n_epochs_kl_warmup": max(1, epochs // 4)}
    options = {"max_epochs": epochs, "batch_size": batch_size, "plan_kwargs": plan}
    model = trained(TunedSCVI, adata, batch_key, **options)
    seconds = time.perf_counter() - start
    reached = Reached(held_out(model), epochs, seconds, f"{peak:g}, {batch_size} cells")
    print("   SCVI", *reached, flush=True)
    return reached


def fastest(runs: Collection[Reached]) -> Reached:
    """Return the fastest of the runs that tie with the best."""
    best = min(run.nats for run in runs)
    return min((run for run in runs if run.nats <= best + TIE), key=lambda run: run.seconds)


def tuned(adata: AnnData, batch_key: str | None) -> Reached:
    """Train SCVI with all cycles, and with the best cycle at other minibatch sizes."""
    runs = {
        (peak, epochs): cycle(adata, batch_key, peak, epochs) for peak in PEAKS for epochs in RUNS
    }
    chosen = fastest(runs.values())
    peak, epochs = next(how for how, run in runs.items() if run is chosen)
    others = [cycle(adata, batch_key, peak, times * epochs, size) for size, times in OTHER_BATCHES]
    return fastest([*runs.values(), *others])


def ours(adata: AnnData, batch_key: str | None, nats: float) -> Reached:
    """Train BetaVI for an increasing number of epochs, until it reaches the target."""
    for epochs in PLANNED:
        start = time.perf_counter()
        model = trained(BetaVI, adata, batch_key, max_epochs=epochs)
        reached = Reached(held_out(model), epochs, time.perf_counter() - start, "defaults")
        print("   BetaVI", *reached, flush=True)
        if reached.nats <= nats:
            return reached
    return reached


def main(*names: str) -> None:
    quietly()
    rows = []
    for name, adata, batch_key in sets():
        if not {*names} <= {"best"} and name not in names:
            continue
        print(name, adata.shape, flush=True)
        # loops are compiled once in the life of an installation
        trained(BetaVI, adata, batch_key, max_epochs=1)
        targets = {}
        if "best" not in names:
            targets["defaults"] = by_default(adata, batch_key)
            print("   SCVI", *targets["defaults"], flush=True)
        tune = tuned(adata, batch_key)
        targets[f"best: {tune.how}"] = tune
        start = time.perf_counter()
        whole = trained(BetaVI, adata, batch_key)
        default_run = held_out(whole), time.perf_counter() - start
        for against, target in targets.items():
            mine = ours(adata, batch_key, target.nats)
            # a target that was not reached has no time to compare with
            times = target.seconds / mine.seconds if mine.nats <= target.nats else np.nan
            by_itself = target.seconds / default_run[1]
            rows.append((name, against, *target[:3], *mine[:3], times, *default_run, by_itself))
    columns = ["data", "SCVI", "nats", "epochs", "s", "BetaVI: nats", "epochs", "s", "ratio"]
    table = pd.DataFrame(rows, columns=[*columns, "BetaVI default: nats", "s", "ratio"])
    print(table.round(1).to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
