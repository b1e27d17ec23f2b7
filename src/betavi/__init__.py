"""β-VAEs for single-cell counts whose latent space can be trusted."""

from __future__ import annotations

from importlib.metadata import version

# rich 15 no longer exposes this submodule by itself, and scvi-tools uses it
import rich.pretty  # noqa: F401

from betavi import datasets, metrics, pl
from betavi.model import BetaVI, JointVI

__version__ = version("betavi")
__all__ = ["BetaVI", "JointVI", "__version__", "datasets", "metrics", "pl"]
