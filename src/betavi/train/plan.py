"""Training plan: β at each step, and the record of each epoch."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS, train
from torch.optim.lr_scheduler import OneCycleLR

from betavi.data.split import DataSplitter
from betavi.objective import constant, join, linear
from betavi.train import processes, start
from betavi.train.start import DEFAULT_SCHEDULE, DEFAULT_WARMUP, SCVI_SCHEDULE

if TYPE_CHECKING:
    from scvi.module.base import LossOutput
    from torch import Tensor

    from betavi.module import MultimodalVAE
    from betavi.objective import Schedule

ON_TARGET = 0.05
"""Relative distance from a target rate at which the rate counts as reached. Not tuned."""

ANNEALED_AGAIN = 0.1
"""Share of the steps over which β rises again after a collapse. Not tuned."""


class TrainingPlan(train.TrainingPlan):
    """scvi-tools' plan, with an exact β and a start at the moments of the training cells.

    The warm-up is a share of the planned steps, so that it ends at the same point of every run.

    Parameters
    ----------
    module
        Module to train.
    beta_schedule, warmup, free_bits, target_rate, capacity
        See :meth:`betavi.BetaVI.train`.
    one_cycle
        Peak of a learning rate that rises and falls within the planned steps, as in
        :class:`torch.optim.lr_scheduler.OneCycleLR`. The default is 0.01. For a model trained on a
        range of β, the default is 0.02. With ``target_rate`` or ``capacity``, the default is 0.005.
        If ``lr``, ``optimizer`` or ``reduce_lr_on_plateau`` is set, or early stopping may end the
        run, the learning rate is constant, as in SCVI.
    from_moments
        Start a new module at the moments of the training cells. False starts at random weights, as
        SCVI does.
    **kwargs
        scvi-tools' options. ``n_epochs_kl_warmup``, ``n_steps_kl_warmup``, ``max_kl_weight`` and
        ``min_kl_weight`` replace the schedule of this package: the weight of the rate (KL) is then
        scvi-tools' KL weight times β.

    Raises
    ------
    ValueError
        If options are out of range or contradict each other.

    References
    ----------
    Smith & Topin (2019), Super-convergence: very fast training using large learning rates.

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
        self.follows_scvi = any(name in kwargs for name in SCVI_SCHEDULE)
        start.check_constraints(module, free_bits, target_rate, capacity)
        self._schedule, self.warmup = start.choose_schedule(
            module, beta_schedule, warmup, target_rate, self.follows_scvi
        )
        is_held = target_rate is not None or capacity is not None
        self.has_usual_rate = one_cycle is None
        self.one_cycle = start.choose_peak(module, one_cycle, is_held, kwargs)
        self.target_rate, self.capacity, self.from_moments = target_rate, capacity, from_moments
        # mean, standard deviation and drawn β, if any, of the cells of the last training minibatch
        self.posterior: tuple[Tensor, Tensor, Tensor | None] | None = None
        # state of a simpler model, for comparison on held-out cells
        self.rival: dict[str, Tensor] | None = None
        self.planned_steps = math.inf
        self._betas_of_epoch: list[Any] = []
        self._last_factor, self._last_beta = 1.0, math.nan
        self._free_bits_after: float | None = None
        # sums of loss, distortion and rate over cells, and the number of cells, by part of the cells
        self._sums: dict[str, Tensor] = {}
        super().__init__(module, free_bits=free_bits, **kwargs)

    def on_fit_start(self) -> None:
        """Set β and the start values, unless the module has weights to keep."""
        super().on_fit_start()
        with processes.seeded_alike(self.trainer):
            start.begin(self)
        if self.trainer.world_size > 1:
            self.loss_kwargs["cell_mean"] = partial(processes.cell_mean, self.trainer)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimiser and its schedule, now that the number of steps is known."""
        self.planned_steps = self.trainer.estimated_stepping_batches
        self.one_cycle = start.peak_of_run(self)
        configured: dict[str, Any] = super().configure_optimizers()
        if self.one_cycle is not None:
            optimizer, n_steps = configured["optimizer"], int(self.planned_steps)
            cycle = OneCycleLR(optimizer, self.one_cycle, total_steps=n_steps)
            configured["lr_scheduler"] = {"scheduler": cycle, "interval": "step"}
        return configured

    _optimizer_creator_fn = start.optimizer_of

    @property
    def share(self) -> float:
        """Share of the planned steps that are done."""
        return self.global_step / self.planned_steps if self._trainer is not None else 0.0

    @property
    def factor(self) -> float:
        """Factor of β that the schedule returns at :attr:`share`."""
        return float(super().kl_weight) if self.follows_scvi else self._schedule(self.share)

    @property
    def share_of_beta(self) -> float:
        """Share of β that weights the rate (KL). 1 if the schedule applies to a capacity."""
        return 1.0 if self.capacity is not None else self.factor

    @property
    def kl_weight(self) -> Tensor:
        """:attr:`share_of_beta` as a 0-d tensor, under scvi-tools' name."""
        return torch.tensor(self.share_of_beta, device=self.device)

    @property
    def is_warm(self) -> bool:
        """True once the warm-up is over."""
        if not self.follows_scvi:
            return self.share >= self.warmup
        epochs, steps = self.n_epochs_kl_warmup, self.n_steps_kl_warmup
        if epochs:
            return self.current_epoch >= epochs
        return not steps or self.global_step >= steps

    @property
    def may_be_monitored(self) -> bool:
        """True after the warm-up, once a target rate is reached, and in the last epoch."""
        if self.current_epoch + 1 == self.trainer.max_epochs:
            return True
        return self.is_warm and self.is_on_target

    @property
    def is_on_target(self) -> bool:
        """True if the target rate is reached, or without a target rate."""
        if self.target_rate is None:
            return True
        return abs(self.module.controller.smooth_rate.item() / self.target_rate - 1) < ON_TARGET

    def anneal_again(self, free_bits: float) -> None:
        """Let β rise from 0 again, over 10 % of the planned steps or over all remaining steps."""
        begin, before = self.share, self._free_bits_after
        before = self.loss_kwargs.get("free_bits", 0.0) if before is None else before
        self.warmup = min(begin + ANNEALED_AGAIN, 1.0)
        self._schedule = join([constant(), linear(1.0), constant()], [begin, self.warmup])
        self.follows_scvi = False
        self._free_bits_after = before
        self.loss_kwargs["free_bits"] = max(before, free_bits)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Take a step at the present β, or at a β drawn for each cell."""
        beta_condition = self.module.beta_condition
        if self._free_bits_after is not None and self.is_warm:
            self.loss_kwargs["free_bits"], self._free_bits_after = self._free_bits_after, None
        if self.capacity is not None:
            self.loss_kwargs["capacity"] = self.capacity * self.factor
        n_cells = len(batch[REGISTRY_KEYS.BATCH_KEY])
        with beta_condition.drawing(n_cells, self.device):
            # the mean of drawn β stays on the device, so that no step waits for it
            drawn = beta_condition.drawn
            beta = beta_condition.beta if drawn is None else drawn.log().mean().exp()
            self._betas_of_epoch.append(beta)
            self._last_factor = self.loss_kwargs["kl_weight"] = self.share_of_beta
            if self.logs_with_scvi:
                loss: Tensor = super().training_step(batch, batch_idx)
            else:
                if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
                    self.log("kl_weight", self._last_factor, on_step=True, on_epoch=False)
                losses: LossOutput = self.forward(batch, loss_kwargs=self.loss_kwargs)[-1]
                self._add("train", losses)
                loss = losses.loss
        if self.target_rate is not None and self.is_warm:
            self._steer(batch, n_cells)
        return loss * self.weight_of(n_cells, batch_idx)

    def weight_of(self, n_cells: int, batch_idx: int) -> float:
        """Return the weight of a minibatch, because those of other processes may be larger.

        With these weights, the mean of the losses over processes is the mean over cells.
        """
        n_processes, splitter = self.trainer.world_size, self.trainer.datamodule
        if n_processes == 1 or not isinstance(splitter, DataSplitter):
            return 1.0
        return n_cells * n_processes / splitter.cells_of_step(batch_idx, n_processes)

    def _steer(self, batch: Any, n_cells: int) -> None:
        """Set the β of the next step from the rate of this step, over all processes."""
        assert self.target_rate is not None
        beta_condition, rate = self.module.beta_condition, self.module.mean_rate(batch)
        if self.trainer.world_size > 1:
            sums = torch.tensor([rate * n_cells, n_cells], device=self.device)
            total, everywhere = processes.summed(self.trainer, sums).tolist()
            rate, n_cells = total / everywhere, int(everywhere)
        beta_condition.beta = self.module.controller.next_beta(
            rate, self.target_rate, beta_condition.beta, n_cells
        )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Sum the losses of a minibatch of held-out cells."""
        if self.logs_with_scvi:
            super().validation_step(batch, batch_idx)
        else:
            self._add("validation", self.forward(batch, loss_kwargs=self.loss_kwargs)[-1])

    @property
    def logs_with_scvi(self) -> bool:
        """True if scvi-tools does the logging: of every step, or for its metrics of batches."""
        return bool(self.on_step or self.module.options.extra_payload_autotune)

    def _add(self, part: str, losses: LossOutput) -> None:
        """Sum losses over cells, because scvi-tools' metrics take milliseconds of every step."""
        n_cells = losses.n_obs_minibatch
        loss = losses.loss.detach()
        sums = (loss * n_cells, losses.reconstruction_loss_sum, losses.kl_local_sum)
        new = torch.stack([*sums, loss.new_tensor(n_cells)]).detach()
        self._sums[part] = self._sums[part] + new if part in self._sums else new

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's outputs for a minibatch, and store its posterior."""
        outputs = super().forward(*args, **kwargs)
        if self.module.training and not self.module.latent.is_deterministic:
            q = outputs[0]["qz"]
            self.posterior = q.loc.detach(), q.scale.detach(), self.module.beta_condition.drawn
        return outputs

    def on_train_epoch_end(self) -> None:
        """Record the losses and β: the β of the last step, or the geometric mean of drawn β."""
        super().on_train_epoch_end()
        self._log_means("train")
        if not self.module.beta_condition.is_fixed:
            drawn = processes.gathered(self.trainer, [*map(float, self._betas_of_epoch)])
            self._betas_of_epoch = [beta for betas in drawn for beta in betas]
        self.record_beta()

    def on_validation_epoch_end(self) -> None:
        """Record the losses of the held-out cells."""
        super().on_validation_epoch_end()
        self._log_means("validation")

    def record_beta(self) -> None:
        """Store the β of the steps since the last record in the module and in the history."""
        betas, self._betas_of_epoch = self._betas_of_epoch, []
        if not betas:
            return
        is_fixed = self.module.beta_condition.is_fixed
        beta = betas[-1] if is_fixed else float(np.exp(np.mean(np.log([*map(float, betas)]))))
        beta *= self._last_factor
        self._last_beta = beta
        self.store_beta()
        if self.logger is not None:
            # self.log would round β to single precision
            self.logger.log_metrics({"beta": beta, "epoch": self.current_epoch}, self.global_step)

    def _log_means(self, part: str) -> None:
        """Log the means over the cells of all processes."""
        if part not in self._sums:
            return
        sums = processes.summed(self.trainer, self._sums.pop(part))
        loss, distortion, rate = sums[:3] / sums[3]
        # all processes have the same values
        together = {"sync_dist": self.trainer.world_size > 1}
        self.log(f"{part}_loss", loss, prog_bar=part == "train", **together)
        # a global KL would be of parameters with a posterior, which our modules do not have
        means = {"elbo": distortion + rate, "reconstruction_loss": distortion, "kl_local": rate}
        means["kl_global"] = torch.zeros_like(rate)
        self.log_dict({f"{name}_{part}": mean for name, mean in means.items()}, **together)

    def store_beta(self) -> None:
        """Store the recorded β, and the capacity if there is one, in the module."""
        self.module.trained_beta.fill_(self._last_beta)
        held = self.final_beta[1] if self.capacity is not None else None
        self.module.held_rate.fill_(math.nan if held is None else held)

    @property
    def final_beta(self) -> tuple[float, float | None]:
        """The recorded β, and the capacity if there is one."""
        return self._last_beta, self.loss_kwargs.get("capacity")

    @final_beta.setter
    def final_beta(self, values: tuple[float, float | None]) -> None:
        self._last_beta, capacity = values
        self.loss_kwargs["capacity"] = capacity

    def forget_steps(self) -> None:
        """Discard the β of steps whose weights are discarded."""
        self._betas_of_epoch.clear()

    def warn_if_short(self) -> None:
        """Warn if the run ended before β, or the capacity, reached its final value."""
        if self.follows_scvi:
            self._warn_if_short_of_scvi()
            return
        is_short = self.global_step < self.planned_steps and not self.is_warm
        never_rose = self._last_factor == 0 and self._schedule(1.0) > 0
        if not (is_short or never_rose):
            return
        scheduled = "β" if self.capacity is None else "the capacity"
        value = self.module.trained_beta if self.capacity is None else self.module.held_rate
        start.warn(
            f"The run ended after {self.global_step} of {self.planned_steps:g} steps, before the end "
            f"of the warm-up. In the last step, {scheduled} was {value.item():.3g}, and the model is "
            "a model of this value. Call train() again without an early end, such as max_time. Or, "
            "train without a warm-up: train(beta_schedule='constant')"
        )

    def _warn_if_short_of_scvi(self) -> None:
        """Warn if scvi-tools' schedule did not finish."""
        if self.factor < self.max_kl_weight:
            start.warn(
                f"The run ended at {self.factor / self.max_kl_weight:.0%} of the KL weight, at β = "
                f"{self.module.trained_beta.item():.3g}, because it had fewer epochs or steps than "
                "scvi-tools' warm-up. Train longer. Or, leave out the options of this warm-up "
                f"({', '.join(SCVI_SCHEDULE[:2])}): the default warm-up fits every run."
            )

    def on_train_end(self) -> None:
        """Warn if scvi-tools' schedule did not finish, or a target rate was not reached."""
        super().on_train_end()
        self.warn_if_short()
        if not self.is_on_target:
            start.warn(
                "The rate (KL to the prior) is "
                f"{self.module.controller.smooth_rate.item():.3g} nats per cell at β = "
                f"{self.module.beta_condition.beta:.3g}, but target_rate={self.target_rate:g} was "
                "requested. Train longer, or choose a target_rate nearer to the present rate."
            )
