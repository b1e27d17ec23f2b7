"""Decoder that ignores z, without any other cause."""

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement


def _judge(found: Evidence) -> Judgement:
    predicted = found.spectrum.active_at(found.beta)
    if found.n_used or not predicted:
        return None
    return (
        f"No dimension is used, and z lowers the loss by {found.explained:.1f} nats per cell. A "
        f"linear VAE would keep {predicted} directions in the data active. The decoder has learned "
        "to ignore z.",
        f"{found.calls.repair}.",
    )


decoder_ignores_z = CauseRule(_judge, priority=80, is_last_resort=True)
