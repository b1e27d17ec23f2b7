"""Remedies for posterior collapse: ways to train a model that has lost its latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from betavi.train import SETS_RATE, USUAL_PEAK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from betavi.model.core.latent_model import LatentModel


FREE_BITS = 0.2

ENCODER_SHARE = 1 / 3
"""Share of the epochs for which the encoder is trained alone."""

FINISHING_PEAK = USUAL_PEAK
"""Peak of the learning rate with which the best of the trials is finished. Rising to it and falling
to nothing is worth more epochs than the trials took: see ``python -m benchmarks.rescue``."""


class Remedy(NamedTuple):
    """How a trial is trained, which causes it is made for, and whether it has new weights."""

    train: Callable[[Any, int, dict[str, Any]], None]
    treats: frozenset[str] = frozenset()
    is_fresh: bool = False


def _encoder_first(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Let the encoder catch up with a decoder that stands still, then train both (He et al., 2019)."""
    alone = max(1, round(ENCODER_SHARE * max_epochs))
    still = [p for p in model.module.parameters() if p.requires_grad]
    moving = {id(p) for p in model.module.z_encoders.parameters()}
    still = [p for p in still if id(p) not in moving]
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        model.train(alone, beta_schedule="constant", **kwargs)
    finally:
        for parameter in still:
            parameter.requires_grad_(True)
    if max_epochs > alone and not model.trainer.interrupted:
        model.train(max_epochs - alone, **kwargs)


def _anneal(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Let β climb from 0 four times over half of the run (Fu et al., 2019)."""
    model.train(max_epochs, beta_schedule="cyclical", warmup=0.5, **kwargs)


def _free_bits(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Leave each dimension nats that are not pressed (Kingma et al., 2016)."""
    model.train(max_epochs, free_bits=FREE_BITS, **kwargs)


def _as_ever(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Train from new weights."""
    model.train(max_epochs, **kwargs)


def finish(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Train what a trial began to its end, at a learning rate that falls to nothing."""
    plan = dict(kwargs.get("plan_kwargs") or {})
    if SETS_RATE.isdisjoint(plan):
        plan.setdefault("one_cycle", FINISHING_PEAK)
    model.train(max_epochs, beta_schedule="constant", **kwargs | {"plan_kwargs": plan})


REMEDIES: dict[str, Remedy] = {
    "encoder": Remedy(_encoder_first, frozenset({"lagging_encoder"})),
    "anneal": Remedy(
        _anneal, frozenset({"beta_too_high", "capacity_too_low", "unfinished_warmup"})
    ),
    "free_bits": Remedy(_free_bits, frozenset({"dispersion_absorbs", "decoder_ignores_z"})),
    "restart": Remedy(_as_ever, is_fresh=True),
}
"""Remedies by the name a user gives, ``remedies=``."""


def in_order_of_worth(causes: Iterable[str]) -> list[str]:
    """Return the names of all remedies, first those that are made for one of the causes."""
    found = set(causes)
    return sorted(REMEDIES, key=lambda name: not REMEDIES[name].treats & found)
