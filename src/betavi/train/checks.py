"""What a training plan refuses before anything is trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from betavi.module import MultimodalVAE

LATEST_STEERING = 0.75
"""Share of the steps that a warm-up may take before a rate that is asked for."""


def check_steering(target_rate: float | None, warm_from: float) -> None:
    """Refuse a warm-up that leaves no time for a rate that is asked for."""
    if target_rate is not None and warm_from > LATEST_STEERING:
        raise ValueError(
            f"With target_rate β is steered once warm, and the warm-up takes {warm_from:.0%} of the "
            f"steps. Leave at least {1 - LATEST_STEERING:.0%} of them: warmup=0.25, or a "
            "beta_schedule that settles."
        )


def check_constraints(
    module: MultimodalVAE, free_bits: float, target_rate: float | None, capacity: float | None
) -> None:
    """Refuse constraints on the rate that are out of range or contradict each other."""
    for name, nats in (
        ("free_bits", free_bits), ("target_rate", target_rate), ("capacity", capacity)
    ):  # fmt: skip
        if nats is not None and not 0 <= nats < math.inf:
            raise ValueError(f"{name} is a finite number of nats, at least 0, not {nats!r}.")
    if target_rate == 0:
        raise ValueError("A target_rate of 0 is a latent space without information; choose more.")
    asked = {"free_bits": free_bits, "target_rate": target_rate, "capacity": capacity}
    words = [name for name, nats in asked.items() if nats or (name == "capacity" and nats == 0)]
    if words and module.latent.is_deterministic:
        raise ValueError(
            f"{words[0]} is about the rate, and a deterministic autoencoder has none. Train with "
            "latent_distribution='normal'."
        )
    if target_rate is not None and capacity is not None:
        raise ValueError("target_rate moves β and capacity keeps it: choose one of them.")
    if not module.dial.is_fixed and not {"target_rate", "capacity"}.isdisjoint(words):
        raise ValueError(
            f"A model of every β from {module.dial.range[0]:g} to {module.dial.range[1]:g} has "
            f"every rate between, not one: train with one beta, or choose a β afterwards with "
            "suggest_beta(criterion='rate')."
        )
