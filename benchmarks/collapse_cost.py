"""Cost of diagnose() and of the collapse guard. ``python -m benchmarks.collapse_cost``."""

from __future__ import annotations

import resource
import time
from typing import Any

import scvi

from benchmarks.peers import quietly
from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.train import CollapseGuard

N_CELLS, N_GENES, EPOCHS = 20_000, 1000, 8


class TimedGuard(CollapseGuard):
    """Guard that measures its own time, because its cost is below the difference of two runs."""

    seconds = 0.0

    def _see(self, *args: Any) -> None:
        start = time.perf_counter()
        super()._see(*args)
        self.seconds += time.perf_counter() - start

    def on_train_epoch_end(self, *args: Any) -> None:
        """Record and judge the epoch."""
        start = time.perf_counter()
        super().on_train_epoch_end(*args)
        self.seconds += time.perf_counter() - start


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    quietly()
    scvi.settings.seed = 0
    adata = simulate_counts(n_cells=N_CELLS, n_genes=N_GENES)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata)
    guard, start = TimedGuard(), time.perf_counter()
    model.train(max_epochs=EPOCHS, callbacks=[guard], enable_progress_bar=False)
    epoch = (time.perf_counter() - start) / EPOCHS
    print(f"{N_CELLS} cells, {N_GENES} genes: {epoch:.2f} s per epoch, guard "
          f"{guard.seconds / EPOCHS / epoch:.2%} of the time")  # fmt: skip
    before, start = megabytes(), time.perf_counter()
    model.diagnose(show_progress=False)
    took = time.perf_counter() - start
    print(f"diagnose: {took:.1f} s, equal to {took / epoch:.1f} epochs; "
          f"{megabytes() - before:.0f} MB more memory than training")  # fmt: skip


if __name__ == "__main__":
    main()
