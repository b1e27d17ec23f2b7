"""Encoder that lags behind its decoder."""

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement

# amortisation gap over what z could explain, the last column of python -m benchmarks.collapse
LARGE_GAP = 0.15
SMALLEST_GAP = 1.0  # lower confidence limit of the gap, nats per cell


def _judge(found: Evidence) -> Judgement:
    possible = found.explained + found.gap
    surely = found.gap - 3 * found.gap_error
    # NaN, a gap that was not measured, also fails this test
    if not (surely >= SMALLEST_GAP and found.gap >= LARGE_GAP * possible):
        return None
    share = f"{found.gap / possible:.0%}" if found.explained > 0 else "all"
    return (
        f"If the posterior of each cell is optimised separately, the loss is {found.gap:.1f} nats "
        f"per cell lower. This is {share} of what z could explain. The encoder lags behind its "
        "decoder.",
        f"{found.calls.repair}. A rescue first trains the encoder alone.",
    )


lagging_encoder = CauseRule(_judge, priority=60, explains_last_resorts=True)
