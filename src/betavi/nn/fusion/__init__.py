"""Fusion rules, one file each: combine a cell's experts into one posterior."""

from __future__ import annotations

from betavi.nn.fusion._base import Fusion
from betavi.nn.fusion.moe import MixtureOfExperts
from betavi.nn.fusion.mopoe import MixtureOfProducts
from betavi.nn.fusion.mvtcae import TotalCorrelation
from betavi.nn.fusion.poe import ProductOfExperts
from betavi.nn.fusion.single import SingleExpert

FUSIONS: dict[str, type[Fusion]] = {
    "single": SingleExpert,
    "poe": ProductOfExperts,
    "moe": MixtureOfExperts,
    "mopoe": MixtureOfProducts,
    "mvtcae": TotalCorrelation,
}
"""Fusion rules by name, ``fusion=``."""

__all__ = ["FUSIONS", "Fusion"]
