"""Real data by name, and simulators with known truth."""

from __future__ import annotations

from betavi.datasets.mosaic import pbmc_mosaic
from betavi.datasets.simulate import simulate_counts
from betavi.datasets.simulate_multiome import simulate_multiome

__all__ = ["pbmc_mosaic", "simulate_counts", "simulate_multiome"]
