"""The module that wires encoders, posterior, decoders, likelihoods and objective."""

from __future__ import annotations

from betavi.module.options import CovariateSizes, Modality, Options
from betavi.module.probes import Probe
from betavi.module.single import BetaVAE
from betavi.module.vae import ExpertKeys, MultimodalVAE, expert_keys, present_key

__all__ = [
    "BetaVAE",
    "CovariateSizes",
    "ExpertKeys",
    "Modality",
    "MultimodalVAE",
    "Options",
    "Probe",
    "expert_keys",
    "present_key",
]
