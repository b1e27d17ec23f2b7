"""Capacity (the constant rate in training) that is too low for the directions in the data."""

import math

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement


def _judge(found: Evidence) -> Judgement:
    n_factors = found.spectrum.n_factors
    if math.isnan(found.held_rate) or found.n_used >= min(found.n_latent, n_factors):
        return None
    return (
        f"Training kept the rate (KL to the prior) at {found.held_rate:.3g} nats per cell, and "
        f"{found.used}. The {n_factors} directions in the data need a higher rate.",
        f"model.train(capacity={2 * max(found.held_rate, 1):.3g}).",
    )


capacity_too_low = CauseRule(_judge, priority=40, explains_last_resorts=True)
