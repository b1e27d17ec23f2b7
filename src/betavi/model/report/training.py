"""Section on training: curves with β."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from betavi import pl
from betavi.diagnostics.trust import judge_training
from betavi.model.report.section import Section, SectionRule, Table, counted, picture_of

if TYPE_CHECKING:
    from betavi.model.report.results import Results


def make(results: Results) -> Section:
    """Judge the curves of the last training run."""
    model = results.model
    history = getattr(model, "history_", None) or {}
    if "elbo_train" not in history:
        raise ValueError("The model has no history of its training.")
    curves = {
        name: history[name].iloc[:, 0].astype(float).dropna()
        for name in ("elbo_train", "elbo_validation", "beta")
        if name in history
    }
    loss, held_out = curves["elbo_train"], curves.get("elbo_validation")
    beta = model.beta_in_force
    requested = _requested_beta(results, beta)
    validation = None if held_out is None else held_out.to_numpy()
    findings = judge_training(loss.to_numpy(), validation, beta, requested)
    first, last = loss.iloc[0], loss.iloc[-1]
    kept = "at a constant rate" if np.isnan(beta) else f"at β = {beta:.3g}"
    sentence = (
        f"{counted(len(loss), 'epoch')}, {kept} at the end. The loss of training cells, the negative ELBO, went from "
        f"{first:.1f} to {last:.1f} nats per cell."
    )
    picture = picture_of(pl.training_curves(history), f"Curves of the loss and of β. {sentence}")
    by_epoch = pd.DataFrame(curves)
    by_epoch.index = pd.Index([number + 1 for number in by_epoch.index], name="epoch")
    caption = "Loss of training cells (elbo_train) and of held-out cells (elbo_validation), nats per cell, and β"
    table = Table(caption, by_epoch)
    if len(table.data) > 2:
        table = table._replace(shown=by_epoch.iloc[[0, -2, -1]])
    verdict = "finished" if not findings else "doubtful"
    return Section(verdict, sentence, findings, [table], [picture])


def _requested_beta(results: Results, beta: float) -> float:
    """Return the requested β, or the reached one if a schedule or a controller chose it."""
    module = results.model.module
    history = (getattr(results.model, "history_", None) or {}).get("beta")
    last = [] if history is None else history.iloc[-2:, 0].tolist()
    has_settled = len(last) > 1 and last[0] == last[1]
    if has_settled or not module.beta_condition.is_fixed or not module.controller.log_beta.isnan():
        return beta
    requested: float = module.beta_condition.beta
    return requested


RULE = SectionRule(
    heading="Training",
    make=make,
    call="model.history, betavi.pl.training_curves(model.history)",
    means="The loss should be flat at the end, and β should have reached its value. Then more epochs "
    "would change little. ELBO is the evidence lower bound. A nat is a unit of log-probability: 1 nat more "
    "means that the counts of a cell are 2.7 times more likely.",
    does_not_mean="A flat curve does not show that the latent space is good. The section on the latent "
    "space tests this.",
)
