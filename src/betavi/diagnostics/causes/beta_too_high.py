"""A β above the strength of the signal."""

from betavi.diagnostics.causes._base import LAST_RESORTS, CauseRule, Evidence, Judgement


def _judge(found: Evidence) -> Judgement:
    spectrum = found.spectrum
    predicted = spectrum.alive_at(found.beta)
    is_short = found.n_used < min(found.n_latent, spectrum.n_factors)
    if not (is_short and spectrum.is_starved(found.beta, found.n_latent)):
        return None
    weakest = 1 + float(spectrum.signals[: found.n_latent][-1])
    beta = spectrum.beta_that_keeps(found.n_latent)
    return (
        f"at β = {found.beta:.3g} a linear theory keeps {predicted} of the {spectrum.n_factors} "
        f"directions that the data hold, and {found.used}: a direction dies "
        f"when its signal and noise fall below β times the noise, and the weakest of those that "
        f"{found.n_latent} dimensions could carry has {weakest:.1f} times the noise.",
        f"{found.calls.repair}, or {found.calls.model.format(f'beta={beta:.2g}')}.",
    )


beta_too_high = CauseRule(_judge, priority=50, explains=LAST_RESORTS)
