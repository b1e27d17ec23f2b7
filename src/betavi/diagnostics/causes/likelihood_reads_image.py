"""Likelihood that predicts an image from its own coarse structure."""

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement


def _judge(found: Evidence) -> Judgement:
    if not found.likelihood_reads_image:
        return None
    return (
        f"The likelihood predicts the details of an image from its coarse structure, so z need not explain "
        f"them. {found.used}.",
        "If you need the latent space, use the likelihood 'band_normal'. If you need draws or probabilities, "
        "change nothing.",
    )


likelihood_reads_image = CauseRule(
    _judge,
    priority=15,
    explains=("too_few_counts", "lagging_encoder"),
    explains_last_resorts=True,
    is_trainable=False,
)
