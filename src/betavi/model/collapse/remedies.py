"""Remedies for posterior collapse: ways to train a model that has lost its latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from betavi.train import SETS_RATE, USUAL_PEAK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from betavi.model.core.latent_model import LatentModel


FREE_BITS = 0.2
"""Nats per dimension that a remedy leaves free."""

ENCODER_SHARE = 1 / 3
"""Share of the epochs for which the encoder is trained alone."""

FINISHING_PEAK = USUAL_PEAK
"""Peak of the learning rate at which the best of the trials is finished. A rate that rises to it and
falls to nothing is worth more epochs than the trials took: see ``python -m benchmarks.rescue``."""


class Remedy(NamedTuple):
    """Training of a trial, the causes it is made for, and whether it starts from new weights."""

    train: Callable[[Any, int, dict[str, Any]], None]
    treats: frozenset[str] = frozenset()
    is_fresh: bool = False


def _encoder_first(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Train the encoder with a fixed decoder, then both (He et al., 2019)."""
    alone = max(1, round(ENCODER_SHARE * max_epochs))
    moving = {id(p) for p in model.module.z_encoders.parameters()}
    still = [p for p in model.module.parameters() if p.requires_grad and id(p) not in moving]
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
    """Raise β from 0 four times over half of the run (Fu et al., 2019)."""
    model.train(max_epochs, beta_schedule="cyclical", warmup=0.5, **kwargs)


def _free_bits(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Train with nats of each dimension that cost nothing (Kingma et al., 2016)."""
    model.train(max_epochs, free_bits=FREE_BITS, **kwargs)


def restart(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Train as usual."""
    model.train(max_epochs, **kwargs)


def finish(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Train a trial to its end, at a learning rate that falls to nothing."""
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
    "restart": Remedy(restart, is_fresh=True),
}
"""Remedies by the name a user gives, ``remedies=``."""


def in_order_of_worth(causes: Iterable[str]) -> list[str]:
    """Return the names of all remedies, first those that are made for one of the causes."""
    found = set(causes)
    return sorted(REMEDIES, key=lambda name: not REMEDIES[name].treats & found)


def obstacle_to_rescue(model: LatentModel) -> str | None:
    """Return why a model cannot be rescued, and what to do; None if it can."""
    if not all(parameter.requires_grad for parameter in model.module.parameters()):
        return (
            "Some weights of this model are frozen, as those of a query are, and a rescue would "
            "train them. Rescue the reference, or let them be trained: "
            "model.module.requires_grad_(True)."
        )
    if not model.module.beta_condition.is_fixed:
        return (
            "A model of many β collapses at the high ones, as it should: choose another with "
            "suggest_beta() and ask for it, beta=..."
        )
    if getattr(model, "validation_indices", None) is None or not len(model.validation_indices):
        return "The model held no cells out to judge remedies by: train it with train_size=0.9."
    return None


def repair_call(model: LatentModel) -> str:
    """Return the call that repairs a collapsed model."""
    if not model.module.beta_condition.is_fixed:
        return "model.suggest_beta(), and ask for the β that it names"
    return "train a new model" if obstacle_to_rescue(model) else "model.rescue()"


def requested_beta(model: LatentModel) -> float:
    """Return the β that the user wanted, which training may not have reached."""
    module = model.module
    is_steered = not module.controller.log_beta.isnan()
    history = (getattr(model, "history_", None) or {}).get("beta")
    # a schedule may settle at another share of β than all of it
    last: Any = [] if history is None else history.iloc[-2:]
    has_settled = len(last) > 1 and last.nunique().item() == 1
    return module.settled_beta if is_steered or has_settled else module.beta_condition.beta
