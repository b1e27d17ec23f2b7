"""Training that ended before β reached its final value."""

from betavi.diagnostics.causes._base import LAST_RESORTS, CauseRule, Evidence, Judgement


def _judge(found: Evidence) -> Judgement:
    if not found.beta < 0.99 * found.asked_beta:
        return None
    return (
        f"training ended at β = {found.beta:.3g} of the {found.asked_beta:.3g} asked for, so what "
        "the dimensions carry is not yet what that β leaves them.",
        "model.train(max_epochs=100, warmup=0.25), and leave n_epochs_kl_warmup out of plan_kwargs.",
    )


unfinished_warmup = CauseRule(_judge, priority=10, explains=LAST_RESORTS)
