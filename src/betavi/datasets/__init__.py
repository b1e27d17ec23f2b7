"""Real data by name, and simulators with known truth."""

from __future__ import annotations

from betavi.datasets.crops import crops
from betavi.datasets.expected_profile import expected_profile
from betavi.datasets.mosaic import pbmc_mosaic
from betavi.datasets.perturbation_effects import EffectDistribution
from betavi.datasets.simulate import simulate_counts
from betavi.datasets.simulate_filaments import simulate_filaments
from betavi.datasets.simulate_multiome import simulate_multiome
from betavi.datasets.simulate_perturbations import simulate_perturbations
from betavi.datasets.simulate_programs import simulate_programs

__all__ = [
    "EffectDistribution",
    "crops",
    "expected_profile",
    "pbmc_mosaic",
    "simulate_counts",
    "simulate_filaments",
    "simulate_multiome",
    "simulate_perturbations",
    "simulate_programs",
]
