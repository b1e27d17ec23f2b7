"""The training plan: which β is in force, and where training starts."""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS, settings, train
from torch.optim.lr_scheduler import OneCycleLR

from betavi.data.moments import moments
from betavi.kernels import compiled
from betavi.objective import constant, end_of_warmup, join, linear, schedule_of
from betavi.train.checks import check_constraints, check_steering
from betavi.train.epoch import EpochTotals
from betavi.train.optimizer import ORDERED

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data.minibatches import CellManager
    from betavi.module import MultimodalVAE
    from betavi.objective import Schedule

SCVI_SCHEDULE = ("n_epochs_kl_warmup", "n_steps_kl_warmup", "max_kl_weight", "min_kl_weight")
"""scvi-tools' words for a schedule of the KL weight; given one, its rules are in force."""

DEFAULT_SCHEDULE, DEFAULT_WARMUP = "linear", 0.25
"""Which schedule is in force if none is asked for, and over which share of the planned steps."""

SETS_RATE = {"lr", "optimizer", "optimizer_creator", "reduce_lr_on_plateau"}
"""scvi-tools' words with which a user says how fast to learn."""

USUAL_PEAK = 1e-2
"""Peak of the learning rate where nobody names one. ``python -m benchmarks.time_to_quality``."""

MANY_BETAS_PEAK = 2e-2
"""Peak of the learning rate of a model of many β, which has more to learn in a run."""

HELD_PEAK = 5e-3
"""Peak of the learning rate where the KL is held at a value: at a learning rate that does not fall,
that of small data sets keeps jumping by a tenth, whatever β is."""

ON_TARGET = 0.05
"""How far off a target a rate may be."""

ANNEALED_AGAIN = 0.1
"""Share of the steps over which β climbs again after a collapse."""


class TrainingPlan(train.TrainingPlan):
    """scvi-tools' plan, with an exact β and a start at the moments of the training cells.

    The β asked for is the module's. A schedule says which share of it is in force at which share of
    the planned steps, so that a warm-up ends at the same point of every run.

    Parameters
    ----------
    module
        The module to train.
    beta_schedule, warmup, free_bits, target_rate, capacity
        See :meth:`betavi.BetaVI.train`.
    one_cycle
        Peak of a learning rate that rises and falls within the planned steps, as
        :class:`torch.optim.lr_scheduler.OneCycleLR` has it (Smith & Topin, 2019). 0.01 by
        default, 0.02 in a model of many β, and 0.005 with ``target_rate`` or ``capacity``. Where
        scvi-tools' ``lr``, ``optimizer`` or ``reduce_lr_on_plateau`` say how fast to learn, or early
        stopping may end the run before it is down, the rate is constant, as in SCVI.
    from_moments
        Start a new module at the moments of the training cells; as its weights were drawn, as SCVI
        does, if False.
    **kwargs
        scvi-tools' options. Its ``n_epochs_kl_warmup``, ``n_steps_kl_warmup``, ``max_kl_weight``
        and ``min_kl_weight`` take the place of ``beta_schedule`` and ``warmup``: their weight times
        β is in force.

    Raises
    ------
    ValueError
        If options are out of range or contradict each other.

    References
    ----------
    Smith & Topin (2019), Super-convergence: very fast training of neural networks using large
    learning rates.

    Examples
    --------
    >>> from betavi.module import BetaVAE
    >>> from betavi.train import TrainingPlan
    >>> plan = TrainingPlan(BetaVAE(n_input=30, n_batch=1), beta_schedule="constant")
    >>> plan.factor, plan.one_cycle
    (1.0, 0.01)
    """

    module: MultimodalVAE

    def __init__(
        self,
        module: MultimodalVAE,
        *,
        beta_schedule: str | Schedule = DEFAULT_SCHEDULE,
        warmup: float = DEFAULT_WARMUP,
        free_bits: float = 0.0,
        target_rate: float | None = None,
        capacity: float | None = None,
        one_cycle: float | None = None,
        from_moments: bool = True,
        **kwargs: Any,
    ) -> None:
        self._follows_scvi = any(name in kwargs for name in SCVI_SCHEDULE)
        is_default = (beta_schedule, warmup) == (DEFAULT_SCHEDULE, DEFAULT_WARMUP)
        if self._follows_scvi and not is_default:
            raise ValueError(
                f"beta_schedule and warmup cannot be combined with scvi-tools' own "
                f"{', '.join(SCVI_SCHEDULE)}. Give the ones or the others."
            )
        if callable(beta_schedule) and warmup != DEFAULT_WARMUP:
            raise ValueError("A function for beta_schedule has its own warm-up: leave warmup out.")
        if is_default and target_rate is not None and not module.controller.log_beta.isnan():
            # a rate that is being kept would get away in a warm-up
            warmup = 0.0
        self._schedule = schedule_of(beta_schedule, warmup)
        check_constraints(module, free_bits, target_rate, capacity)
        check_steering(target_rate, end_of_warmup(beta_schedule, warmup))
        self._chooses_rate = one_cycle is None and SETS_RATE.isdisjoint(kwargs)
        if self._chooses_rate:
            is_held = target_rate is not None or capacity is not None
            one_cycle = HELD_PEAK if is_held else USUAL_PEAK
            one_cycle = one_cycle if module.dial.is_fixed else MANY_BETAS_PEAK
        if one_cycle is not None and not 0 < one_cycle < math.inf:
            raise ValueError(f"one_cycle is a learning rate above 0, not {one_cycle!r}.")
        if one_cycle is not None and kwargs.get("reduce_lr_on_plateau"):
            raise ValueError("one_cycle and reduce_lr_on_plateau both set the learning rate.")
        self.warmup, self.one_cycle = end_of_warmup(beta_schedule, warmup), one_cycle
        self.target_rate, self.capacity = target_rate, capacity
        self.from_moments = from_moments
        self._planned_steps = math.inf
        self._betas_of_epoch: list[Any] = []
        self._last_factor = 1.0
        self._free_bits_after: float | None = None
        self._totals = EpochTotals()
        super().__init__(module, free_bits=free_bits, **kwargs)

    # -- where training starts ----------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Set the output biases and dispersions, unless the module has weights to keep."""
        super().on_fit_start()
        if compiled is None and self.device.type == "cpu":
            warnings.warn(
                "Numba cannot be imported, so that training takes the plain path, which gives the "
                "same result in several times the time. Repair it with: pip install numba.",
                UserWarning,
                stacklevel=settings.warnings_stacklevel,
            )
        self.module.dial.reset()
        if self.target_rate is not None:
            self.module.dial.beta = self.module.controller.beta(self.module.dial.beta)
        splitter: Any = self.trainer.datamodule
        manager = getattr(splitter, "adata_manager", None)
        if not self.from_moments:
            # nor when it is trained again
            self.module.is_fresh.fill_(False)
        if self.module.is_fresh and manager is not None:
            names = list(self.module.likelihoods)
            starts = {name: moments(manager, name, splitter.train_idx) for name in names}
            self.module.start_at(starts)
            if self.module.prior.reads_pseudo_cells:
                self.module.start_prior_at(self._some_cells(manager, splitter.train_idx))

    def _some_cells(self, manager: CellManager, train_idx: np.ndarray) -> dict[str, Tensor]:
        """Return a minibatch of random training cells, as many as the prior may learn."""
        chosen = torch.randint(len(train_idx), (self.module.options.n_components,))
        some = manager.create_torch_dataset(np.asarray(train_idx)[chosen.numpy()])
        return {key: value.to(self.device) for key, value in some[:].items()}

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimiser, now that the number of steps is known."""
        self._planned_steps = self.trainer.estimated_stepping_batches
        is_open = not math.isfinite(self._planned_steps)
        if self._chooses_rate and self._may_end_early(is_open):
            self.one_cycle = None
        if is_open and (self.one_cycle is not None or not self._follows_scvi):
            raise ValueError(
                "A schedule of β, and one_cycle, need the number of epochs: give max_epochs, or "
                "scvi-tools' schedule, plan_kwargs={'n_epochs_kl_warmup': ..., 'lr': ...}."
            )
        configured: dict[str, Any] = super().configure_optimizers()
        if self.one_cycle is not None:
            cycle = OneCycleLR(
                configured["optimizer"], self.one_cycle, total_steps=int(self._planned_steps)
            )
            configured["lr_scheduler"] = {"scheduler": cycle, "interval": "step"}
        return configured

    def _optimizer_creator_fn(self, optimizer_cls: type[torch.optim.Adam]) -> Any:
        options = {"lr": self.lr, "eps": self.eps, "weight_decay": self.weight_decay}
        # where losses are scaled Lightning clips no gradients of a fused optimiser
        scales = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        return partial(ORDERED[optimizer_cls], fused=not scales, **options)

    def _may_end_early(self, is_open: bool) -> bool:
        """Return whether a run may end before a learning rate that rises and falls is down."""
        return (self._follows_scvi and is_open) or bool(self.trainer.early_stopping_callbacks)

    # -- which β is in force ------------------------------------------------------------------

    @property
    def share(self) -> float:
        """Share of the planned steps that are done."""
        return self.global_step / self._planned_steps if self._trainer is not None else 0.0

    @property
    def factor(self) -> float:
        """What the schedule says at this share."""
        return float(super().kl_weight) if self._follows_scvi else self._schedule(self.share)

    def anneal_again(self, free_bits: float) -> None:
        """Let β climb from 0 again, over a tenth of the planned steps or what is left of them.

        Parameters
        ----------
        free_bits
            Nats that each dimension is left meanwhile, at least.
        """
        start, before = self.share, self._free_bits_after
        before = self.loss_kwargs.get("free_bits", 0.0) if before is None else before
        self.warmup = min(start + ANNEALED_AGAIN, 1.0)
        self._schedule = join([constant(), linear(1.0), constant()], [start, self.warmup])
        self._follows_scvi = False
        self._free_bits_after = before
        self.loss_kwargs["free_bits"] = max(before, free_bits)

    @property
    def share_of_beta(self) -> float:
        """Share of β that weighs the rate; all of it where a capacity is scheduled instead."""
        return 1.0 if self.capacity is not None else self.factor

    @property
    def kl_weight(self) -> Tensor:
        """Share of β that weighs the rate, 0-d, under scvi-tools' name for it."""
        return torch.tensor(self.share_of_beta, device=self.device)

    @property
    def is_warm(self) -> bool:
        """Whether the warm-up is over."""
        if not self._follows_scvi:
            return self.share >= self.warmup
        epochs, steps = self.n_epochs_kl_warmup, self.n_steps_kl_warmup
        if epochs:
            return self.current_epoch >= epochs
        return not steps or self.global_step >= steps

    @property
    def may_be_judged(self) -> bool:
        """Whether β is in force and a rate that was asked for is reached, or the run is over."""
        if self.current_epoch + 1 == self.trainer.max_epochs:
            return True
        return self.is_warm and (self.target_rate is None or self._is_on_target)

    @property
    def _is_on_target(self) -> bool:
        assert self.target_rate is not None
        return abs(self.module.controller.smooth_rate.item() / self.target_rate - 1) < ON_TARGET

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Take a step at the β in force, or at one drawn for each cell."""
        dial = self.module.dial
        if self._free_bits_after is not None and self.is_warm:
            self.loss_kwargs["free_bits"], self._free_bits_after = self._free_bits_after, None
        if self.capacity is not None:
            self.loss_kwargs["capacity"] = self.capacity * self.factor
        n_cells = len(batch[REGISTRY_KEYS.BATCH_KEY])
        with dial.drawing(n_cells, self.device):
            # the mean of those drawn stays on the device, which no step is to wait for
            drawn = dial.drawn
            self._betas_of_epoch.append(dial.beta if drawn is None else drawn.log().mean().exp())
            self._last_factor = self.loss_kwargs["kl_weight"] = self.share_of_beta
            if self._logs_steps:
                loss: Tensor = super().training_step(batch, batch_idx)
            else:
                if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
                    self.log("kl_weight", self._last_factor, on_step=True, on_epoch=False)
                *_, losses = self.forward(batch, loss_kwargs=self.loss_kwargs)
                self._totals.add(losses)
                loss = losses.loss
        if self.target_rate is not None and self.is_warm:
            rate = self.module.mean_rate(batch)
            dial.beta = self.module.controller.next_beta(rate, self.target_rate, dial.beta, n_cells)
        return loss

    @property
    def _logs_steps(self) -> bool:
        """Whether something is asked for of every step, which scvi-tools records."""
        return self.on_step or self.use_sync_dist or self.module.options.extra_payload_autotune

    def on_train_epoch_end(self) -> None:
        """Record β: of the last step or, where it is drawn, the geometric mean, with its factor."""
        super().on_train_epoch_end()
        if self._totals.n_cells:
            means = self._totals.means()
            self.log("train_loss", means.pop("train_loss"), prog_bar=True)
            self.log_dict(means)
            self._totals = EpochTotals()
        betas, self._betas_of_epoch = self._betas_of_epoch, []
        if not betas:
            return
        is_fixed = self.module.dial.is_fixed
        beta = betas[-1] if is_fixed else float(np.exp(np.mean(np.log([*map(float, betas)]))))
        beta *= self._last_factor
        self.module.trained_beta.fill_(beta)
        held = self.loss_kwargs.get("capacity") if self.capacity is not None else None
        self.module.held_rate.fill_(math.nan if held is None else held)
        if self.logger is not None:
            # not self.log, which would round it to single precision
            self.logger.log_metrics({"beta": beta, "epoch": self.current_epoch}, self.global_step)

    def on_train_end(self) -> None:
        """Say so if scvi-tools' schedule did not come to its end, or a target was not reached."""
        super().on_train_end()
        if self.target_rate is not None and not self._is_on_target:
            warnings.warn(
                f"The rate came to {self.module.controller.smooth_rate.item():.3g} nats per cell, "
                f"and not to the {self.target_rate:g} asked for, at β = {self.module.dial.beta:.3g}. "
                "Train longer, or ask for a rate that this model can have.",
                UserWarning,
                stacklevel=settings.warnings_stacklevel,
            )
        if self._follows_scvi and self.factor < self.max_kl_weight:
            warnings.warn(
                f"The run ended at {self.factor / self.max_kl_weight:.0%} of the KL weight asked "
                "for: scvi-tools' warm-up counts epochs or steps, and there were fewer. Leave "
                f"{', '.join(SCVI_SCHEDULE[:2])} out to reach β in every run.",
                UserWarning,
                stacklevel=settings.warnings_stacklevel,
            )
