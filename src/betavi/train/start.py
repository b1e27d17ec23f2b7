"""Decisions made once, before the first training step: checks, schedule, learning rate, start values."""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import settings

from betavi.data.start_values import moments
from betavi.kernels import compiled
from betavi.objective import end_of_warmup, schedule_of
from betavi.train.optimizer import ORDERED

if TYPE_CHECKING:
    from betavi.data import DataSplitter
    from betavi.module import MultimodalVAE
    from betavi.objective import Schedule
    from betavi.train.plan import TrainingPlan

SCVI_SCHEDULE = ("n_epochs_kl_warmup", "n_steps_kl_warmup", "max_kl_weight", "min_kl_weight")
"""scvi-tools' words for a schedule of the KL weight; given one, its rules are in force."""

DEFAULT_SCHEDULE, DEFAULT_WARMUP = "linear", 0.25
"""Default schedule, and the share of the planned steps it takes. No benchmark tunes them."""

LATEST_STEERING = 0.75
"""Largest share of the steps that a warm-up may take before a target rate. No benchmark tunes it."""

SETS_RATE = {"lr", "optimizer", "optimizer_creator", "reduce_lr_on_plateau"}
"""scvi-tools' words with which a user sets the learning rate."""

USUAL_PEAK = 1e-2
"""Default peak of the learning rate, judged on real data by ``benchmarks.time_to_quality``."""

MANY_BETAS_PEAK = 2e-2
"""Peak of the learning rate of a model of many β, judged on real data by ``benchmarks.multi_rate``."""

HELD_PEAK = 5e-3
"""Peak of the learning rate where the KL is held at a value: at a constant learning rate, that of
small data sets keeps jumping by a tenth, whatever β is. Tried on data; no benchmark tunes it."""


def choose_schedule(
    module: MultimodalVAE,
    beta_schedule: str | Schedule,
    warmup: float,
    target_rate: float | None,
    follows_scvi: bool,
) -> tuple[Schedule, float]:
    """Return the schedule of β, and the share of the steps after which its warm-up is over."""
    is_default = (beta_schedule, warmup) == (DEFAULT_SCHEDULE, DEFAULT_WARMUP)
    if follows_scvi and not is_default:
        raise ValueError(
            f"beta_schedule and warmup cannot be combined with scvi-tools' own "
            f"{', '.join(SCVI_SCHEDULE)}. Give the ones or the others."
        )
    if callable(beta_schedule) and warmup != DEFAULT_WARMUP:
        raise ValueError("A function for beta_schedule has its own warm-up: leave warmup out.")
    if is_default and target_rate is not None and not module.controller.log_beta.isnan():
        # another warm-up would lose the rate that a run before has reached
        warmup = 0.0
    schedule, end = schedule_of(beta_schedule, warmup), end_of_warmup(beta_schedule, warmup)
    if target_rate is not None and end > LATEST_STEERING:
        raise ValueError(
            f"With target_rate β is steered once warm, and the warm-up takes {end:.0%} of the "
            f"steps. Leave at least {1 - LATEST_STEERING:.0%} of them: warmup=0.25, or a "
            "beta_schedule that settles."
        )
    return schedule, end


def check_constraints(
    module: MultimodalVAE, free_bits: float, target_rate: float | None, capacity: float | None
) -> None:
    """Refuse constraints on the rate that are out of range or contradict each other."""
    given = {"free_bits": free_bits, "target_rate": target_rate, "capacity": capacity}
    for name, nats in given.items():
        if nats is not None and not 0 <= nats < math.inf:
            raise ValueError(f"{name} is a finite number of nats, at least 0, not {nats!r}.")
    if target_rate == 0:
        raise ValueError("A target_rate of 0 is a latent space without information; choose more.")
    words = [name for name, nats in given.items() if nats or (name == "capacity" and nats == 0)]
    if words and module.latent.is_deterministic:
        raise ValueError(
            f"{words[0]} is about the rate, and a deterministic autoencoder has none. Train with "
            "latent_distribution='normal'."
        )
    if target_rate is not None and capacity is not None:
        raise ValueError("target_rate moves β and capacity keeps it: choose one of them.")
    if not module.beta_condition.is_fixed and not {"target_rate", "capacity"}.isdisjoint(words):
        raise ValueError(
            f"A model of every β from {module.beta_condition.range[0]:g} to {module.beta_condition.range[1]:g} has "
            f"every rate between, not one: train with one beta, or choose a β afterwards with "
            "suggest_beta(criterion='rate')."
        )


def choose_peak(
    module: MultimodalVAE, one_cycle: float | None, is_held: bool, kwargs: dict[str, Any]
) -> float | None:
    """Return the peak of the learning rate, None if it is constant."""
    if one_cycle is None:
        usual = HELD_PEAK if is_held else USUAL_PEAK
        usual = usual if module.beta_condition.is_fixed else MANY_BETAS_PEAK
        return usual if SETS_RATE.isdisjoint(kwargs) else None
    if not 0 < one_cycle < math.inf:
        raise ValueError(f"one_cycle is a learning rate above 0, not {one_cycle!r}.")
    if kwargs.get("reduce_lr_on_plateau"):
        raise ValueError("one_cycle and reduce_lr_on_plateau both set the learning rate.")
    return one_cycle


def peak_of_run(plan: TrainingPlan) -> float | None:
    """Return the peak in a run whose length is known: the usual learning rate needs its end."""
    is_open = not math.isfinite(plan.planned_steps)
    may_end_early = bool(plan.trainer.early_stopping_callbacks) or (plan.follows_scvi and is_open)
    peak = None if plan.has_usual_rate and may_end_early else plan.one_cycle
    if is_open and (peak is not None or not plan.follows_scvi):
        raise ValueError(
            "A schedule of β, and one_cycle, need the number of epochs: give max_epochs, or "
            "scvi-tools' schedule, plan_kwargs={'n_epochs_kl_warmup': ..., 'lr': ...}."
        )
    return peak


def optimizer_of(plan: TrainingPlan, optimizer_cls: type[torch.optim.Adam]) -> Any:
    """Return a function from parameters to an optimiser in one pass over memory."""
    # where losses are scaled Lightning clips no gradients of a fused optimiser
    scales = getattr(plan.trainer.precision_plugin, "scaler", None) is not None
    options = {"lr": plan.lr, "eps": plan.eps, "weight_decay": plan.weight_decay}
    return partial(ORDERED[optimizer_cls], fused=not scales, **options)


def begin(plan: TrainingPlan) -> None:
    """Set β and, in a module without weights to keep, the start values."""
    module, splitter = plan.module, plan.trainer.datamodule
    if compiled is None and plan.device.type == "cpu":
        warnings.warn(
            "Numba cannot be imported, so that training takes the plain path, which gives the "
            "same result in several times the time. Repair it with: pip install numba.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel,
        )
    module.beta_condition.reset()
    if plan.target_rate is not None:
        module.beta_condition.beta = module.controller.beta(module.beta_condition.beta)
    if not plan.from_moments:
        # nor when it is trained again
        module.is_fresh.fill_(False)
    if module.is_fresh and getattr(splitter, "adata_manager", None) is not None:
        _start_at_moments(module, splitter, plan.device)


def _start_at_moments(module: MultimodalVAE, splitter: DataSplitter, device: torch.device) -> None:
    """Set output biases, dispersions and the prior's learned cells from the training cells."""
    manager, cells = splitter.adata_manager, splitter.train_idx
    module.start_at({name: moments(manager, name, cells) for name in list(module.likelihoods)})
    if module.prior.reads_pseudo_cells:
        chosen = torch.randint(len(cells), (module.options.n_components,))
        some = manager.create_torch_dataset(np.asarray(cells)[chosen.numpy()])[:]
        module.start_prior_at({key: value.to(device) for key, value in some.items()})


def warn(message: str) -> None:
    """Warn with scvi-tools' stack level."""
    warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel)
