"""Remedies for posterior collapse: ways to train a collapsed model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from betavi.train import SETS_RATE, USUAL_PEAK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from betavi.model.core.latent_model import LatentModel


FREE_BITS = 0.2
"""Nats per dimension that the remedy of free bits does not penalise; not tuned."""

ENCODER_SHARE = 1 / 3
"""Share of the epochs in which the encoder is trained alone; not tuned."""

FINISHING_PEAK = USUAL_PEAK
"""Peak of the learning rate for finishing the best trial, judged on real data by
``benchmarks.time_to_quality``. ``python -m benchmarks.rescue`` compares it with a constant rate:
the schedule gains more than the epochs of the trials cost."""


class Remedy(NamedTuple):
    """Function that trains a trial, the causes it treats, and True if the trial has new weights."""

    train: Callable[[Any, int, dict[str, Any]], None]
    treats: frozenset[str] = frozenset()
    is_fresh: bool = False


def _encoder_first(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Train the encoder with a fixed decoder, then both (He et al., 2019)."""
    alone = max(1, round(ENCODER_SHARE * max_epochs))
    encoder = {id(p) for p in model.module.z_encoders.parameters()}
    frozen = [p for p in model.module.parameters() if p.requires_grad and id(p) not in encoder]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        model.train(alone, beta_schedule="constant", **kwargs)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    if max_epochs > alone and not model.trainer.interrupted:
        model.train(max_epochs - alone, **kwargs)


def _anneal(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Raise β from 0 four times in the first half of the run (Fu et al., 2019)."""
    model.train(max_epochs, beta_schedule="cyclical", warmup=0.5, **kwargs)


def _free_bits(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Train with free bits: a low rate of each dimension is not penalised (Kingma et al., 2016)."""
    model.train(max_epochs, free_bits=FREE_BITS, **kwargs)


def restart(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Train with the default schedule."""
    model.train(max_epochs, **kwargs)


def finish(model: LatentModel, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Train a trial to the end, with a learning rate that falls to 0."""
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
"""Remedies by name, for the argument ``remedies``."""


def sorted_remedies(causes: Iterable[str]) -> list[str]:
    """Return the names of all remedies. Those that treat one of the causes come first."""
    found = set(causes)
    return sorted(REMEDIES, key=lambda name: not REMEDIES[name].treats & found)


def obstacle_to_rescue(model: LatentModel) -> str | None:
    """Return the reason why a model cannot be rescued, with the remedy.

    None if rescue is possible.
    """
    if not all(parameter.requires_grad for parameter in model.module.parameters()):
        return (
            "Some weights of the model are frozen, as in a query model, but a rescue trains all "
            "weights. Rescue the reference model. Or, unfreeze the weights: "
            "model.module.requires_grad_(True)"
        )
    if not model.module.beta_condition.is_fixed:
        return (
            "The model was trained on a range of β and is expected to collapse at high β. Choose "
            "a lower β with suggest_beta(), and pass this β to other methods: beta=..."
        )
    if getattr(model, "validation_indices", None) is None or not len(model.validation_indices):
        return "No cells were held out to judge remedies. Train with train(train_size=0.9)."
    return None


def repair_call(model: LatentModel) -> str:
    """Return the Python code that repairs a collapsed model, as text."""
    if not model.module.beta_condition.is_fixed:
        return "model.suggest_beta(), and use the β that it suggests"
    return "train a new model" if obstacle_to_rescue(model) else "model.rescue()"


def requested_beta(model: LatentModel) -> float:
    """Return the β that the user requested. Training may not have reached it."""
    module = model.module
    is_steered = not module.controller.log_beta.isnan()
    history = (getattr(model, "history_", None) or {}).get("beta")
    # a schedule may settle at a share of the requested β
    last: Any = [] if history is None else history.iloc[-2:]
    has_settled = len(last) > 1 and last.nunique().item() == 1
    return module.settled_beta if is_steered or has_settled else module.beta_condition.beta
