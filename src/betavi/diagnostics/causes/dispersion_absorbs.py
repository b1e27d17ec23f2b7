"""A dispersion that takes signal for noise."""

from __future__ import annotations

from betavi.diagnostics.causes._base import LAST_RESORTS, CauseRule, Evidence, Judgement

OVERDISPERSED = 1.5
"""Model variance over the variance that the data's directions leave unexplained, from which on the
likelihood explains signal as noise."""


def _judge(found: Evidence) -> Judgement:
    # a network uses fewer dimensions than there are directions, because it bends, but not a quarter
    is_short = 4 * found.n_used < found.spectrum.alive_at(found.beta)
    if not (found.excess_noise >= OVERDISPERSED and is_short):
        return None
    return (
        f"the likelihood's variance is {found.excess_noise:.1f} times what the directions in the "
        "data leave unexplained: it takes signal for noise.",
        f"{found.calls.plain_counts}, which takes nothing for noise that is not of counting, or "
        f"{found.calls.repair}.",
    )


dispersion_absorbs = CauseRule(_judge, priority=70, explains=LAST_RESORTS)
