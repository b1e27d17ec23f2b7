"""β that is too high for the strength of the signal."""

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement


def _judge(found: Evidence) -> Judgement:
    spectrum = found.spectrum
    is_short = found.n_used < min(found.n_latent, spectrum.n_factors)
    if not (is_short and spectrum.is_starved(found.beta, found.n_latent)):
        return None
    weakest = 1 + float(spectrum.signals[: found.n_latent][-1])
    beta = spectrum.beta_that_keeps(found.n_latent)
    return (
        f"β = {found.beta:.3g} is too high for the signal. At this β, a linear VAE would keep "
        f"{spectrum.active_at(found.beta)} of the {spectrum.n_factors} directions in the data active, "
        f"and {found.used}. A direction is active if its variance is above β times its noise. The "
        f"variance of the weakest direction that {found.n_latent} dimensions could represent is "
        f"{weakest:.1f} times the noise.",
        f"{found.calls.repair}, or {found.calls.model.format(f'beta={beta:.2g}')}.",
    )


beta_too_high = CauseRule(_judge, priority=50, explains_last_resorts=True)
