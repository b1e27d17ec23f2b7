"""Parts with weights: encoders, decoders, posteriors, latent variables, library sizes."""

from __future__ import annotations

from betavi.kernels import observed_log_library
from betavi.nn.fusion import FUSIONS, Fusion
from betavi.nn.gates import ROUNDING, Dial, Drift, Gate, Shift, Turn
from betavi.nn.latent import LATENTS, Latent, Point
from betavi.nn.library import LatentLibrary, TypicalLibrary
from betavi.nn.mixtures import NormalMixture
from betavi.nn.networks import Architecture, Decoder, Encoder, evaluating
from betavi.nn.prior import PRIORS, Prior, PseudoCells, StandardNormal

__all__ = [
    "FUSIONS",
    "LATENTS",
    "PRIORS",
    "ROUNDING",
    "Architecture",
    "Decoder",
    "Dial",
    "Drift",
    "Encoder",
    "Fusion",
    "Gate",
    "Latent",
    "LatentLibrary",
    "NormalMixture",
    "Point",
    "Prior",
    "PseudoCells",
    "Shift",
    "StandardNormal",
    "Turn",
    "TypicalLibrary",
    "evaluating",
    "observed_log_library",
]
