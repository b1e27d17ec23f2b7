"""More dimensions than directions in the data."""

import math

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement


def _has_spare(found: Evidence) -> bool:
    return found.n_latent > found.spectrum.alive_at(found.beta)


def _judge(found: Evidence) -> Judgement:
    if found.n_used == 0 or (found.n_used == found.n_latent and not _has_spare(found)):
        return None
    predicted = found.spectrum.alive_at(found.beta)
    at_beta = "" if math.isnan(found.beta) else f" at β = {found.beta:.3g}"
    bends = (
        " A dimension of a network bends, and does for several directions: more dimensions would be "
        "to spare, too."
    ) * (found.n_used < predicted)
    return (
        f"{found.used}, and a linear theory keeps {predicted} "
        f"directions of the data alive{at_beta}.{bends} Dimensions to spare do no harm.",
        f"none needed; {found.calls.model.format(f'n_latent={found.n_used}')} has none to spare.",
    )


too_many_dimensions = CauseRule(_judge, priority=90, independent_if=_has_spare)
