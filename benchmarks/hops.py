"""Number of files and functions that a call enters, and depth of its stack, compared with SCVI.

``python -m benchmarks.hops`` prints one row per call. Only frames of the package count: ``betavi``
for our models, ``scvi`` for SCVI. Comprehensions and lambdas count as part of their function.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import scvi

import betavi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

INNER = {"<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<lambda>", "<module>"}


class Trace:
    """Profiler that counts the frames of a package."""

    def __init__(self, package: Path) -> None:
        self.root = str(package)
        self.files: set[str] = set()
        self.functions: set[tuple[str, str]] = set()
        self.n_calls, self.depth = 0, 0

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Record a call of a function of the package."""
        code = frame.f_code
        if event != "call" or not self._is_ours(frame) or code.co_name in INNER:
            return
        self.files.add(code.co_filename.removeprefix(self.root))
        self.functions.add((code.co_filename, code.co_qualname))
        self.n_calls += 1
        depth, up = 0, frame
        while up is not None:
            depth += self._is_ours(up) and up.f_code.co_name not in INNER
            up = up.f_back
        self.depth = max(self.depth, depth)

    def _is_ours(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self.root)

    def row(self) -> dict[str, int]:
        """Return the counts."""
        return {
            "files": len(self.files),
            "functions": len(self.functions),
            "depth": self.depth,
            "calls": self.n_calls,
        }


@contextmanager
def traced(package: Any) -> Iterator[Trace]:
    """Trace the calls of a package."""
    trace = Trace(Path(package.__file__).parent)
    sys.setprofile(trace)
    try:
        yield trace
    finally:
        sys.setprofile(None)


def trained(make: Callable[[Any], Any], data: Any, **kwargs: Any) -> Any:
    """Return a model after one epoch of training."""
    model = make(data, **kwargs)
    model.train(max_epochs=1, enable_progress_bar=False)
    return model


def training_step(model: Any, package: Any) -> Trace:
    """Trace the third step of another epoch of training, from minibatch to loss."""
    plan_class = model._training_plan_cls
    step, found = plan_class.training_step, []

    def watched(plan: Any, batch: Any, batch_idx: int) -> Any:
        if batch_idx != 2:
            return step(plan, batch, batch_idx)
        with traced(package) as trace:
            loss = step(plan, batch, batch_idx)
        found.append(trace)
        return loss

    plan_class.training_step = watched
    try:
        model.train(max_epochs=1, enable_progress_bar=False)
    finally:
        plan_class.training_step = step
    return found[0]


def measured(package: Any, call: Callable[[], Any]) -> Trace:
    """Trace the second of two identical calls."""
    call()
    with traced(package) as trace:
        call()
    return trace


def traces() -> dict[str, Trace]:
    """Return the trace of each call, by the name of the row."""
    adata = betavi.datasets.simulate_counts(n_cells=600, n_genes=100, seed=0)
    betavi.BetaVI.setup_anndata(adata)
    ours = trained(betavi.BetaVI, adata)
    other = adata.copy()
    scvi.model.SCVI.setup_anndata(other)
    theirs = trained(scvi.model.SCVI, other)
    mdata = betavi.datasets.simulate_multiome(n_cells=600, seed=0)
    betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    joint = trained(betavi.JointVI, mdata)
    quiet = {"show_progress": False}
    some = list(range(128))
    return {
        "training step": training_step(ours, betavi),
        "training step, SCVI": training_step(theirs, scvi),
        "get_latent_representation": measured(betavi, ours.get_latent_representation),
        "get_latent_representation, SCVI": measured(scvi, theirs.get_latent_representation),
        "denoise": measured(betavi, lambda: ours.denoise(**quiet)),
        "get_normalized_expression, SCVI": measured(scvi, theirs.get_normalized_expression),
        "get_normalized_expression": measured(betavi, ours.get_normalized_expression),
        "translate": measured(betavi, lambda: joint.translate("rna", "adt", **quiet)),
        "generate": measured(betavi, lambda: ours.generate(128, **quiet)),
        "posterior_predictive_sample, SCVI": measured(scvi, theirs.posterior_predictive_sample),
        "support of 128 cells": measured(betavi, lambda: ours.support(indices=some, **quiet)),
    }


def main() -> None:
    """Print the table and, with ``--files``, the files of each call."""
    warnings.simplefilter("ignore")
    found = traces()
    print(pd.DataFrame({name: trace.row() for name, trace in found.items()}).T.to_string())
    if "--files" in sys.argv:
        for name, trace in found.items():
            print(f"\n{name}: {', '.join(sorted(trace.files))}")


if __name__ == "__main__":
    main()
