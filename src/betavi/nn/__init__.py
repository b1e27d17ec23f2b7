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
from betavi.nn.convolutional_encoder import ConvolutionalEncoder
from betavi.nn.decoders import DECODERS, Decoder
from betavi.nn.fusion import FUSIONS, Fusion
from betavi.nn.latent import LATENTS, Latent, Point
from betavi.nn.mixtures import NormalMixture
from betavi.nn.networks import Architecture, Encoder
from betavi.nn.prior import PRIORS, Prior, StandardNormal

ENCODERS: dict[str, type[Encoder] | type[ConvolutionalEncoder]] = {
    "plain": Encoder,
    "convolutional": ConvolutionalEncoder,
}
"""Encoders by name: of counts, and of images."""

__all__ = [
    "DECODERS",
    "ENCODERS",
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
