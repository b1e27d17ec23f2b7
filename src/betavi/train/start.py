"""Decisions before the first training step: checks, schedule, learning rate, initial values."""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from scvi import settings

from betavi.data.start_images import SAMPLED_VALUES, image_start
from betavi.data.start_programs import programs
from betavi.data.start_values import largest_total, moments
from betavi.kernels import compiled
from betavi.module.image_start import at_components
from betavi.objective import schedule_of
from betavi.objective.schedule import end_of_warmup
from betavi.train.optimizer import ORDERED

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data import DataSplitter, Rows
    from betavi.data.start_images import ImageStart
    from betavi.data.start_values import Start
    from betavi.module import MultimodalVAE
    from betavi.nn import Decoder
    from betavi.nn.depth import DepthLimit
    from betavi.objective import Schedule
    from betavi.train.plan import TrainingPlan

SCVI_SCHEDULE = ("n_epochs_kl_warmup", "n_steps_kl_warmup", "max_kl_weight", "min_kl_weight")
"""scvi-tools' options for a schedule of the KL weight. If one is given, scvi-tools' rules apply."""

DEFAULT_SCHEDULE, DEFAULT_WARMUP = "linear", 0.25
"""Default schedule, and the share of the planned steps for its warm-up. Not tuned."""

LATEST_STEERING = 0.75
"""Largest share of the steps for a warm-up before a target rate. Not tuned."""

SETS_RATE = {"lr", "optimizer", "optimizer_creator", "reduce_lr_on_plateau"}
"""scvi-tools' options that set the learning rate."""

USUAL_PEAK = 1e-2
"""Default peak of the learning rate. ``benchmarks.time_to_quality`` compares it on real data."""

MANY_BETAS_PEAK = 2e-2
"""Peak for a model trained on a range of β. ``benchmarks.multi_rate`` compares it on real data."""

IMAGE_PEAK = 3e-3
"""Peak for a model of images, whose convolutions train worse at a higher peak. Of 0.001, 0.003 and
0.01, it gave the fewest bits per pixel on held-out crops of a real image."""

HELD_PEAK = 5e-3
"""Peak of the learning rate if the KL is kept constant. With a constant learning rate, the KL of
small data sets fluctuates by a tenth at any β. Tried on data, not tuned by a benchmark."""


def choose_schedule(
    module: MultimodalVAE,
    beta_schedule: str | Schedule,
    warmup: float,
    target_rate: float | None,
    follows_scvi: bool,
) -> tuple[Schedule, float]:
    """Return the schedule of β, and the share of the steps after which its warm-up ends."""
    is_default = (beta_schedule, warmup) == (DEFAULT_SCHEDULE, DEFAULT_WARMUP)
    if follows_scvi and not is_default:
        raise ValueError(
            "`beta_schedule` and `warmup` cannot be combined with scvi-tools' schedule options "
            f"({', '.join(SCVI_SCHEDULE)}). Leave out both arguments, or leave out scvi-tools' options."
        )
    if callable(beta_schedule) and warmup != DEFAULT_WARMUP:
        raise ValueError("A function as `beta_schedule` has its own warm-up. Leave `warmup` out.")
    if is_default and target_rate is not None and not module.controller.log_beta.isnan():
        # another warm-up would lose the rate that an earlier run reached
        warmup = 0.0
    schedule, end = schedule_of(beta_schedule, warmup), end_of_warmup(beta_schedule, warmup)
    if target_rate is not None and end > LATEST_STEERING:
        raise ValueError(
            f"`target_rate` adjusts β after the warm-up, but the warm-up takes {end:.0%} of the "
            f"steps. Leave at least {1 - LATEST_STEERING:.0%} of the steps: use warmup=0.25, or a "
            "`beta_schedule` that becomes constant earlier."
        )
    return schedule, end


def check_constraints(
    module: MultimodalVAE, free_bits: float, target_rate: float | None, capacity: float | None
) -> None:
    """Raise a ValueError if constraints on the rate are out of range or contradict each other."""
    given = {"free_bits": free_bits, "target_rate": target_rate, "capacity": capacity}
    for name, nats in given.items():
        if nats is not None and not 0 <= nats < math.inf:
            raise ValueError(f"`{name}` must be a finite number of nats, 0 or more, not {nats!r}.")
    if target_rate == 0:
        raise ValueError("target_rate=0 leaves z without information. Choose a higher rate.")
    words = [name for name, nats in given.items() if nats or (name == "capacity" and nats == 0)]
    if words and module.latent.is_deterministic:
        raise ValueError(
            f"`{words[0]}` constrains the rate, but a deterministic autoencoder has no rate. Use "
            "latent_distribution='normal'."
        )
    if target_rate is not None and capacity is not None:
        raise ValueError("`target_rate` changes β, but `capacity` does not. Pass only one of them.")
    if not module.beta_condition.is_fixed and not {"target_rate", "capacity"}.isdisjoint(words):
        low, high = module.beta_condition.range
        raise ValueError(
            f"`{words[-1]}` sets one rate (KL), but a model trained on a range of β, {low:g} to "
            f"{high:g}, has a range of rates. Train with one `beta`. Or, choose a β after "
            "training: suggest_beta(criterion='rate', rate=...)"
        )


def choose_peak(
    module: MultimodalVAE, one_cycle: float | None, is_held: bool, kwargs: dict[str, Any]
) -> float | None:
    """Return the peak of the learning rate, or None if it is constant."""
    if one_cycle is None:
        usual = HELD_PEAK if is_held else USUAL_PEAK
        usual = usual if module.beta_condition.is_fixed else MANY_BETAS_PEAK
        usual = min(usual, IMAGE_PEAK) if len(module.image_scales) else usual
        return usual if SETS_RATE.isdisjoint(kwargs) else None
    if not 0 < one_cycle < math.inf:
        raise ValueError(f"`one_cycle` must be a learning rate above 0, not {one_cycle!r}.")
    if kwargs.get("reduce_lr_on_plateau"):
        raise ValueError("Use `one_cycle` or `reduce_lr_on_plateau`: both set the learning rate.")
    return one_cycle


def peak_of_run(plan: TrainingPlan) -> float | None:
    """Return the peak of the learning rate. The default peak needs a run of known length."""
    is_open = not math.isfinite(plan.planned_steps)
    may_end_early = bool(plan.trainer.early_stopping_callbacks) or (plan.follows_scvi and is_open)
    peak = None if plan.has_usual_rate and may_end_early else plan.one_cycle
    if is_open and (peak is not None or not plan.follows_scvi):
        raise ValueError(
            "A schedule of β and `one_cycle` need the number of epochs. Set `max_epochs`. Or, use "
            "scvi-tools' schedule: plan_kwargs={'n_epochs_kl_warmup': ..., 'lr': ...}"
        )
    return peak


def optimizer_of(plan: TrainingPlan, optimizer_cls: type[torch.optim.Adam]) -> Any:
    """Return a function from parameters to an optimiser with one pass over memory."""
    # with loss scaling, Lightning does not clip the gradients of a fused optimiser
    scales = getattr(plan.trainer.precision_plugin, "scaler", None) is not None
    options = {"lr": plan.lr, "eps": plan.eps, "weight_decay": plan.weight_decay}
    return partial(ORDERED[optimizer_cls], fused=not scales, **options)


def begin(plan: TrainingPlan) -> None:
    """Set β and, in a new module, the initial values."""
    module, splitter = plan.module, plan.trainer.datamodule
    is_new = bool(module.is_fresh)
    if compiled is None and plan.device.type == "cpu":
        warn(
            "Numba cannot be imported, so training on the CPU takes several times as long, with "
            "the same result. Install Numba with: pip install numba"
        )
    beta_condition = module.beta_condition
    beta_condition.beta = beta_condition.default
    if plan.target_rate is not None:
        beta_condition.beta = module.controller.beta(beta_condition.beta)
    if not plan.from_moments:
        # neither now nor in a later run
        module.is_fresh.fill_(False)
    if getattr(splitter, "adata_manager", None) is not None:
        _limit_depth(module, splitter)
        if module.is_fresh:
            plan.rival = _start_at_moments(module, splitter, plan.device)
        if is_new:
            # the estimates need no training, so they do not depend on `from_moments`
            module.start_effects(splitter.adata_manager, np.asarray(splitter.train_idx))


def _limit_depth(module: MultimodalVAE, splitter: DataSplitter) -> None:
    """Set the limits of cells' totals that are not set yet, from the training cells."""
    manager, cells = splitter.adata_manager, np.asarray(splitter.train_idx)
    for name, limit in cast("dict[str, DepthLimit]", module.depth_limits).items():
        if limit.largest_total.isinf():
            rows = cast("Rows", manager.rows(name))
            limit.start_at(largest_total(rows, cells[rows.present[cells]]))


def _start_at_moments(
    module: MultimodalVAE, splitter: DataSplitter, device: torch.device
) -> dict[str, Tensor] | None:
    """Set output layers, dispersions and the prior's learned cells from the training cells.

    Return the state at PCA of a module of images, or None.
    """
    manager, cells = splitter.adata_manager, splitter.train_idx
    names = [name for name in module.likelihoods if name not in module.image_scales]
    starts: dict[str, Start | ImageStart] = {name: moments(manager, name, cells) for name in names}
    of_images = _image_starts(module, splitter)
    starts |= of_images
    module.start_at(starts)
    decoders = cast("dict[str, Decoder]", module.decoders)
    if any(decoder.starts_at_programs for decoder in decoders.values()):
        found = programs(manager, names, np.asarray(cells), module.options.n_latent)
        module.start_programs_at({name: part.to(device) for name, part in found.items()})
    if module.prior.reads_pseudo_cells:
        chosen = torch.randint(len(cells), (module.options.n_components,))
        some = manager.create_torch_dataset(np.asarray(cells)[chosen.numpy()])[:]
        module.start_prior_at({key: value.to(device) for key, value in some.items()})
    return at_components(module, of_images)


def _image_starts(module: MultimodalVAE, splitter: DataSplitter) -> dict[str, ImageStart]:
    """Return the start values of images, of cells with all images if there are any."""
    manager, cells, names = (
        splitter.adata_manager,
        np.asarray(splitter.train_idx),
        [*module.image_scales],
    )
    if not names:
        return {}
    rows = [cast("Rows", manager.rows(name)) for name in names]
    paired = cells[np.all([part.present[cells] for part in rows], axis=0)]
    n_sampled = max(2, SAMPLED_VALUES // sum(part.shape[1] for part in rows))
    some = paired if len(paired) else cells
    return {name: image_start(manager, name, some, n_sampled) for name in names}


def warn(message: str) -> None:
    """Warn with scvi-tools' stack level. Of several processes, only the first warns."""
    if rank_zero_only.rank == 0:
        warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel)
