"""Short training, for tests that show that code runs rather than how well a model fits."""

from __future__ import annotations

from functools import wraps

from betavi import BetaVI, JointVI

MODELS = (BetaVI, JointVI)


def shortened(train):
    """Return a model's ``train`` with at most 3 epochs, whatever its caller passes."""

    @wraps(train)
    def short(self, max_epochs=None, *args, **kwargs):
        kwargs["enable_progress_bar"] = False
        return train(self, min(max_epochs or 3, 3), *args, **kwargs)

    return short


def shorten():
    """Shorten all training in this process. The kernel of a notebook calls this function."""
    for cls in MODELS:
        cls.train = shortened(cls.train)
