"""Callback that monitors the latent dimensions during training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback

from betavi._tables import lookup
from betavi.diagnostics import ACTIVE, mutual_information
from betavi.train import processes
from betavi.train.start import warn

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor

    from betavi.train.plan import TrainingPlan

ACTIONS: dict[str, bool] = {"warn": False, "rescue": True}
"""True if the guard rescues the model, by name of the action."""

# not tuned by a benchmark
FALLEN = 0.1
"""Share of the largest information of the run. Below this share, the latent space collapsed."""

CELLS_COMPARED = 128
"""Last cells of an epoch, used for the mutual information. Time grows with the square."""

MINIBATCHES_SEEN = 16
"""Minibatches whose moments are summed at once, because small operations slow every step."""

EARLIEST, FEWEST_STEPS = 0.1, 100
"""Share and number of steps. Before these, a model may not have learned anything yet."""

MOST_RESCUES, BACK_OFF = 3, 0.25
LATEST_RESCUE = 0.85
"""Share of the planned steps after which too few steps are left for a rescue."""

RESCUED_BITS = 0.2
"""Free bits of each dimension, in nats, while β rises again."""


class CollapseGuard(Callback):
    """Monitors the information in the latent dimensions, and warns when it is lost.

    For each epoch, ``history["active_dimensions"]`` holds the number of dimensions with more than
    0.1 nats per cell. ``history["mutual_information"]`` holds the information of all dimensions
    together, in nats per cell, for the last 128 cells. For a model trained on a range of β, both
    use only the 50 % of the cells with the lower β.

    Parameters
    ----------
    action
        ``"warn"`` warns once, with the epoch and the likely cause. ``"rescue"`` reduces β to 25 %.
        β then starts at 0 again and rises to the reduced value over 10 % of the planned steps.
        During this rise, a low rate (KL) of each dimension is not penalised (free bits), and the
        encoder takes two steps per minibatch. There are at most 3 rescues.

    Raises
    ------
    ValueError
        If the action is unknown.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.history["active_dimensions"].shape
    (2, 1)
    """

    def __init__(self, action: str = "warn") -> None:
        self.rescues = lookup(ACTIONS, action, "collapse_guard")
        self.peak, self.peak_epoch = 0.0, 0
        self.n_rescues = 0
        self.has_warned = False
        self._encoder_steps: torch.optim.Optimizer | None = None
        self._reset()

    def _reset(self) -> None:
        self._n_cells = 0
        self._sums: Tensor | float = 0.0
        self._recent: list[tuple[Tensor, Tensor]] = []
        self._last: tuple[Tensor, ...] = ()

    def _see(self, plan: TrainingPlan) -> None:
        """Store the posteriors of the last minibatch."""
        if plan.posterior is None:
            return
        loc, scale, betas = plan.posterior
        if betas is not None:
            low = betas.squeeze(1) <= betas.median()
            loc, scale = loc[low], scale[low]
        self._recent.append((loc, scale))
        if len(self._recent) >= MINIBATCHES_SEEN:
            self._add_recent()

    def _add_recent(self) -> None:
        loc, scale = (torch.cat(parts).float() for parts in zip(*self._recent, strict=True))
        self._recent = []
        self._n_cells += len(loc)
        moments = torch.stack((loc, loc.square(), scale.square(), scale.log()))
        self._sums = self._sums + moments.sum(dim=1)
        pairs = zip(self._last, (loc, scale), strict=True) if self._last else ((loc,), (scale,))
        self._last = tuple(torch.cat(pair)[-CELLS_COMPARED:] for pair in pairs)

    def _gather(self, trainer: Trainer) -> None:
        """Add the cells of all processes."""
        assert isinstance(self._sums, torch.Tensor)
        # on the CPU, because not every device has double precision
        own = self._n_cells, self._sums.cpu().double(), [part.cpu() for part in self._last]
        numbers, sums, last = zip(*processes.gathered(trainer, own), strict=True)
        self._n_cells, self._sums = sum(numbers), sum(sums)
        share = -(-CELLS_COMPARED // len(last))
        of_all = zip(*last, strict=True)
        self._last = tuple(torch.cat([part[-share:] for part in parts]) for parts in of_all)

    def information(self) -> Tensor:
        """Return the information in each dimension in this epoch, nats, ``(n_latent,)``."""
        assert isinstance(self._sums, torch.Tensor)
        mean, square, noise, log_scale = self._sums / self._n_cells
        return (square - mean.square() + noise).log() / 2 - log_scale

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainingPlan) -> None:
        """Record the epoch, and check it for a collapse."""
        if self._recent:
            self._add_recent()
        if not self._n_cells:
            return
        self._gather(trainer)
        information = self.information()
        loc, scale = self._last
        if trainer.logger is not None:
            seen = {
                "active_dimensions": int((information > ACTIVE).sum()),
                "mutual_information": mutual_information(loc.numpy(), scale.numpy()),
                "epoch": trainer.current_epoch,
            }
            trainer.logger.log_metrics(seen, trainer.global_step)
        self._reset()
        self._check_collapse(information, trainer, pl_module)

    def _check_collapse(self, information: Tensor, trainer: Trainer, plan: TrainingPlan) -> None:
        carried = information.sum().item()
        # during the warm-up, dimensions carry more information than later
        if plan.is_warm and carried > self.peak:
            self.peak, self.peak_epoch = carried, trainer.current_epoch
        is_collapsed = carried < FALLEN * self.peak or bool((information <= ACTIVE).all())
        has_learned = plan.share >= EARLIEST and plan.global_step >= FEWEST_STEPS
        is_judged = plan.is_warm and has_learned and plan.module.beta_condition.is_fixed
        if not (is_collapsed and is_judged):
            self._encoder_steps = None if plan.is_warm else self._encoder_steps
            return
        before = f", down from {self.peak:.2g} in epoch {self.peak_epoch}" if self.peak else ""
        message = (
            f"The latent space collapsed by epoch {trainer.current_epoch}: its dimensions carry "
            f"{carried:.2g} nats per cell{before}. {self._likely_cause(plan)}"
        )
        if self.rescues and self.n_rescues < MOST_RESCUES and plan.share < LATEST_RESCUE:
            self._rescue(plan, message)
        elif not self.has_warned:
            self.has_warned = True
            warn(f"{message} Run model.diagnose() for details, or model.rescue() for a repair.")

    def _likely_cause(self, plan: TrainingPlan) -> str:
        beta = plan.module.beta_condition.beta * plan.share_of_beta
        if plan.capacity is not None:
            return f"The rate is kept at the capacity of {plan.capacity:.3g} nats per cell."
        if beta > 1:
            return f"β = {beta:.3g} is probably too high for the signal."
        if self.peak < 1:
            return (
                "The dimensions never carried 1 nat. Either there are few counts, or covariates "
                "explain the cells."
            )
        return "The decoder has probably learned to ignore the latent space."

    def _rescue(self, plan: TrainingPlan, message: str) -> None:
        self.n_rescues += 1
        beta_condition = plan.module.beta_condition
        beta_condition.beta = BACK_OFF * beta_condition.beta
        # a later run starts from this β
        beta_condition.range = (beta_condition.beta, beta_condition.beta)
        plan.anneal_again(free_bits=RESCUED_BITS)
        encoders = [p for p in plan.module.z_encoders.parameters() if p.requires_grad]
        self._encoder_steps = torch.optim.Adam(encoders, lr=plan.lr)
        self.peak = 0.0
        warn(
            f"{message} Training continues with rescue {self.n_rescues} of {MOST_RESCUES}: β "
            f"starts at 0 again and rises to the reduced value {beta_condition.beta:.3g}. During "
            "this rise, a minimum rate (KL) of each dimension is not penalised (free bits), and "
            "the encoder takes two steps for each step of the decoder. You do not have to do "
            "anything."
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TrainingPlan, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the minibatch. During a rescue, take a second step of the encoder."""
        self._see(pl_module)
        if self._encoder_steps is None or pl_module.is_warm:
            return
        _, _, losses = pl_module.forward(batch, loss_kwargs=pl_module.loss_kwargs)
        self._see(pl_module)
        parameters = self._encoder_steps.param_groups[0]["params"]
        loss = losses.loss * pl_module.weight_of(losses.n_obs_minibatch, batch_idx)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = processes.mean_gradient(trainer, parameter, gradient)
        self._encoder_steps.step()
        self._encoder_steps.zero_grad()
