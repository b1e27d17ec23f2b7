"""PyTorch module: encoders, posterior, decoders, likelihoods and objective."""

from __future__ import annotations

from betavi.module.options import CovariateSizes, Modality, Options
from betavi.module.probes import Probe
from betavi.module.single import BetaVAE
from betavi.module.vae import MultimodalVAE

__all__ = [
    "BetaVAE",
    "CovariateSizes",
    "Modality",
    "MultimodalVAE",
    "Options",
    "Probe",
]
