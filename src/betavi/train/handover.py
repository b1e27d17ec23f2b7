"""Results that a spawned process passes to the process that started it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch import Trainer

    from betavi.train.plan import TrainingPlan


class HandOver(Callback):
    """Passes β at the end of a run through a file. Lightning passes the weights only."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_fit_end(self, trainer: Trainer, plan: TrainingPlan) -> None:
        """Write β in the first process."""
        if trainer.is_global_zero:
            condition = plan.module.beta_condition
            values = {"beta": condition.beta, "range": condition.range, "plan": plan.final_beta}
            self.path.write_text(json.dumps(values))

    def restore(self, plan: TrainingPlan) -> None:
        """Read β in the process that started the others."""
        values = json.loads(self.path.read_text())
        plan.module.beta_condition.beta = values["beta"]
        plan.module.beta_condition.range = tuple(values["range"])
        plan.final_beta = values["plan"]
