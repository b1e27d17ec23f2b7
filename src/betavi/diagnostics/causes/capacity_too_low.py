"""A rate held too low for the directions of the data."""

import math

from betavi.diagnostics.causes._base import LAST_RESORTS, CauseRule, Evidence, Judgement


def _judge(found: Evidence) -> Judgement:
    n_factors = found.spectrum.n_factors
    if math.isnan(found.held_rate) or found.n_used >= min(found.n_latent, n_factors):
        return None
    return (
        f"training held the rate at {found.held_rate:.3g} nats per cell, with which {found.used}, "
        f"and the data hold {n_factors} directions.",
        f"model.train(capacity={2 * max(found.held_rate, 1):.3g}).",
    )


capacity_too_low = CauseRule(_judge, priority=40, explains=LAST_RESORTS)
