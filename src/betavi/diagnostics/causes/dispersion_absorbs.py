"""A dispersion that takes signal for noise."""

from betavi.diagnostics.causes._base import LAST_RESORTS, CauseRule, Evidence, Judgement

OVERDISPERSED = 1.5  # model variance over the variance left by the data's directions


def _judge(found: Evidence) -> Judgement:
    # a nonlinear network uses fewer dimensions than there are directions, but not below a quarter
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
