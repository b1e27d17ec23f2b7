"""Warm-up that had not reached the requested β at the end of training."""

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement


def _judge(found: Evidence) -> Judgement:
    if not found.beta < 0.99 * found.requested_beta:
        return None
    return (
        f"Training ended at β = {found.beta:.3g}, and the requested β is {found.requested_beta:.3g}. "
        "The dimensions do not yet show the effect of the requested β.",
        "model.train(max_epochs=100, warmup=0.25), without n_epochs_kl_warmup in plan_kwargs.",
    )


unfinished_warmup = CauseRule(_judge, priority=10, explains_last_resorts=True)
