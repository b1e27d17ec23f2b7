"""Latent variables, one file each: normal, on the simplex, or deterministic."""

from __future__ import annotations

from betavi.nn.latent._base import Latent
from betavi.nn.latent.deterministic import DeterministicLatent, Point
from betavi.nn.latent.ln import LogisticNormalLatent
from betavi.nn.latent.normal import NormalLatent

LATENTS: dict[str, type[Latent]] = {
    "normal": NormalLatent,
    "ln": LogisticNormalLatent,
    "deterministic": DeterministicLatent,
}
"""Latent variables by name, ``latent_distribution=``."""

__all__ = ["LATENTS", "Latent", "Point"]
