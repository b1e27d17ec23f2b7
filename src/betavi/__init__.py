"""β-VAEs for single-cell data, built on scvi-tools."""

from __future__ import annotations

from importlib.metadata import version

# scvi-tools uses this submodule, which rich 15 no longer imports by itself
import rich.pretty  # noqa: F401

from betavi import data, datasets, metrics, pl
from betavi.model import BetaVI, EffectVI, JointVI, convert, hub_card

__version__ = version("betavi")
__all__ = [
    "BetaVI", "EffectVI", "JointVI", "__version__", "convert", "data", "datasets", "hub_card",
    "metrics", "pl",
]  # fmt: skip
