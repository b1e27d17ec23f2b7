"""Dispersion that models signal as noise."""

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement

OVERDISPERSED = 1.5  # model variance over the variance outside the directions in the data


def _judge(found: Evidence) -> Judgement:
    # a nonlinear network needs fewer dimensions than directions, but not less than a quarter
    is_short = 4 * found.n_used < found.spectrum.active_at(found.beta)
    if not (found.excess_noise >= OVERDISPERSED and is_short):
        return None
    return (
        f"The variance of the likelihood is {found.excess_noise:.1f} times the variance that the "
        "directions in the data leave unexplained. The dispersion models signal as noise.",
        f"{found.calls.plain_counts}, which has counting noise only, or {found.calls.repair}.",
    )


dispersion_absorbs = CauseRule(_judge, priority=70, explains_last_resorts=True)
