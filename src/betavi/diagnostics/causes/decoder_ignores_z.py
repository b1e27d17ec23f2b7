"""A decoder that does without z, for no other reason."""

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement


def _judge(found: Evidence) -> Judgement:
    predicted = found.spectrum.alive_at(found.beta)
    if found.n_used or not predicted:
        return None
    return (
        f"no dimension is used, z explains {found.explained:.1f} nats per cell, and a linear theory "
        f"keeps {predicted} directions of the data alive: the decoder has learned to do without z.",
        f"{found.calls.repair}.",
    )


decoder_ignores_z = CauseRule(_judge, priority=80)
