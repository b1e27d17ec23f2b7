"""Covariates that explain the signal, so that z is not needed."""

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement

LITTLE_SIGNAL = 0.1  # share of the signal that remains after correction for covariates


def _judge(found: Evidence) -> Judgement:
    with_them, without = found.spectrum, found.spectrum_without_covariates
    # batches are directions too, and removing them is harmless if others remain
    share = with_them.signals.sum() / without.signals.sum() if without.n_factors else 1.0
    is_little = share < LITTLE_SIGNAL and 2 * found.n_used <= with_them.n_factors
    if 4 * with_them.n_factors >= without.n_factors and not is_little:
        return None
    return (
        f"Cells differ in {without.n_factors} directions. After correction for the covariates, "
        f"{with_them.n_factors} directions with {share:.0%} of the signal remain. The covariates "
        f"lower the loss by {found.covariates:.1f} nats per cell, so little signal is left for z.",
        "Remove biological covariates (labels, clusters) from setup_anndata(batch_key=, "
        "categorical_covariate_keys=).",
    )


covariates_explain = CauseRule(_judge, priority=30, explains_last_resorts=True, is_trainable=False)
