"""Latent dimensions that outnumber the directions in the data."""

import math

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement


def _has_spare(found: Evidence) -> bool:
    return found.n_latent > found.spectrum.active_at(found.beta)


def _judge(found: Evidence) -> Judgement:
    if found.n_used == 0 or (found.n_used == found.n_latent and not _has_spare(found)):
        return None
    predicted = found.spectrum.active_at(found.beta)
    at_beta = "" if math.isnan(found.beta) else f" at β = {found.beta:.3g}"
    nonlinear = " One dimension of a neural network can represent several directions."
    return (
        f"{found.used}. A linear VAE would keep {predicted} directions in the data active{at_beta}."
        f"{nonlinear * (found.n_used < predicted)} Unused dimensions are harmless.",
        "No change is needed. For a model without unused dimensions: "
        f"{found.calls.model.format(f'n_latent={found.n_used}')}.",
    )


too_many_dimensions = CauseRule(
    _judge, priority=90, independent_if=_has_spare, is_last_resort=True, is_trainable=False
)
