"""The module that wires encoders, posterior, decoders, likelihoods and objective."""

from __future__ import annotations

from betavi.module.infer import ExpertKeys, expert_keys, present_key
from betavi.module.options import CovariateSizes, Modality, Options
from betavi.module.probes import Probe
from betavi.module.single import BetaVAE
from betavi.module.vae import MultimodalVAE

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
