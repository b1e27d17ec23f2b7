"""An encoder that lags behind its decoder."""

from betavi.diagnostics.causes._base import LAST_RESORTS, CauseRule, Evidence, Judgement

# amortisation gap over what z could explain, the last column of python -m benchmarks.collapse
LARGE_GAP = 0.15
SMALLEST_GAP = 1.0  # lower confidence limit of the gap, nats per cell


def _judge(found: Evidence) -> Judgement:
    possible = found.explained + found.gap
    surely = found.gap - 3 * found.gap_error
    # also false for a gap of NaN, which was not measured
    if not (surely >= SMALLEST_GAP and found.gap >= LARGE_GAP * possible):
        return None
    share = f"{found.gap / possible:.0%}" if found.explained > 0 else "all"
    return (
        f"posteriors refined cell by cell are {found.gap:.1f} nats per cell better, {share} of what "
        "z could explain: the encoder lags behind its decoder.",
        f"{found.calls.repair}. A rescue trains the encoder alone first.",
    )


lagging_encoder = CauseRule(_judge, priority=60, explains=LAST_RESORTS)
