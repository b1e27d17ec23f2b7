"""Covariates that explain the signal in the place of z."""

from betavi.diagnostics.causes._base import LAST_RESORTS, CauseRule, Evidence, Judgement

LEFT_BY_COVARIATES = 0.1  # share of the signal left by covariates, below which it is little


def _judge(found: Evidence) -> Judgement:
    with_them, without = found.spectrum, found.spectrum_without_covariates
    # batches are directions too: removing them is harmless if others are left
    share = with_them.signals.sum() / without.signals.sum() if without.n_factors else 1.0
    is_little = share < LEFT_BY_COVARIATES and 2 * found.n_used <= with_them.n_factors
    if 4 * with_them.n_factors >= without.n_factors and not is_little:
        return None
    return (
        f"of {without.n_factors} directions in which the cells differ, {with_them.n_factors} are "
        f"left beyond what the covariates say, with {share:.0%} of the signal; the covariates save "
        f"{found.covariates:.1f} nats per cell.",
        "leave covariates that are biology (labels, clusters) out of setup_anndata(batch_key=, "
        "categorical_covariate_keys=).",
    )


covariates_explain = CauseRule(_judge, priority=30, explains=LAST_RESORTS)
