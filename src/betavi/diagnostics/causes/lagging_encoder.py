"""An encoder that lags behind its decoder."""

from __future__ import annotations

from betavi.diagnostics.causes._base import LAST_RESORTS, CauseRule, Evidence, Judgement

LARGE_GAP = 0.15
"""Amortisation gap from which on the encoder is to blame, as a share of the nats that z could
explain: the last column that ``python -m benchmarks.collapse`` prints for each model."""

SMALLEST_GAP = 1.0
"""Lower confidence limit of the gap from which on the encoder is to blame, nats per cell."""


def _judge(found: Evidence) -> Judgement:
    possible = found.explained + found.gap
    surely = found.gap - 3 * found.gap_error
    # of a gap that was not measured nothing is sure
    if not (surely >= SMALLEST_GAP and found.gap >= LARGE_GAP * possible):
        return None
    share = f"{found.gap / possible:.0%}" if found.explained > 0 else "all"
    return (
        f"posteriors refined cell by cell are {found.gap:.1f} nats per cell better, {share} of what "
        "z could explain: the encoder lags behind its decoder.",
        f"{found.calls.repair}. A rescue trains the encoder alone first.",
    )


lagging_encoder = CauseRule(_judge, priority=60, explains=LAST_RESORTS)
