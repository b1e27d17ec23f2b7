"""Short training, for tests that show that code runs rather than how well a model fits."""

from __future__ import annotations

from functools import wraps
from importlib import import_module

from betavi import BetaVI, EffectVI, JointVI

FEWER = {
    "betavi.diagnostics.spectrum": {"N_FLIPS": 1},
    "betavi.model.collapse.report": {"REFINING_STEPS": 5},
    "betavi.model.core.dimensions": {"PROBED_CELLS": 100},
    "betavi.model.collapse.rescue": {"IMPORTANCE_DRAWS": 5},
}
"""Numbers of repeats that make estimates precise, and lower ones."""


def shortened(train):
    """Return a model's ``train`` with at most 3 epochs, whatever its caller passes."""

    @wraps(train)
    def short(self, max_epochs=None, *args, **kwargs):
        kwargs["enable_progress_bar"] = False
        return train(self, min(max_epochs or 3, 3), *args, **kwargs)

    return short


def shorten(replace=setattr):
    """Shorten training and diagnoses in this process. The kernel of a notebook calls this."""
    for cls in (BetaVI, JointVI, EffectVI):
        replace(cls, "train", shortened(cls.train))
    repeat_less(replace)


def repeat_less(replace):
    """Make diagnoses and rescues fast and imprecise."""
    for module, numbers in FEWER.items():
        for name, number in numbers.items():
            replace(import_module(module), name, number)
