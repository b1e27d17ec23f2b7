"""Network parts: encoders, decoders, fusion rules, latent variables, priors and library sizes."""

from __future__ import annotations

from betavi.kernels import observed_log_library
from betavi.nn.beta_condition import (
    ROUNDING,
    BetaBias,
    BetaCondition,
    BetaFiLM,
    BetaGate,
    BetaLinear,
)
from betavi.nn.decoders import DECODERS, Decoder
from betavi.nn.fusion import FUSIONS, Fusion
from betavi.nn.latent import LATENTS, Latent, Point
from betavi.nn.mixtures import NormalMixture
from betavi.nn.networks import Architecture
from betavi.nn.prior import PRIORS, Prior, StandardNormal

__all__ = [
    "DECODERS",
    "FUSIONS",
    "LATENTS",
    "PRIORS",
    "ROUNDING",
    "Architecture",
    "BetaBias",
    "BetaCondition",
    "BetaFiLM",
    "BetaGate",
    "BetaLinear",
    "Decoder",
    "Fusion",
    "Latent",
    "NormalMixture",
    "Point",
    "Prior",
    "StandardNormal",
    "observed_log_library",
]
