"""Parts with weights: encoders, decoders, posteriors, latent variables, library sizes."""

from __future__ import annotations

from betavi.nn.latents import LATENTS, Latent, Point
from betavi.nn.library import LatentLibrary, observed_log_library
from betavi.nn.networks import Architecture, Decoder, Encoder
from betavi.nn.posteriors import FUSIONS, Fusion

__all__ = [
    "FUSIONS",
    "LATENTS",
    "Architecture",
    "Decoder",
    "Encoder",
    "Fusion",
    "Latent",
    "LatentLibrary",
    "Point",
    "observed_log_library",
]
