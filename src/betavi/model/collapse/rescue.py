"""Rescue of a collapsed model: short trials of remedies, then the best is trained to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from betavi._tables import lookup
from betavi.diagnostics import RescueReport, active_dimensions, best_remedy, gain
from betavi.diagnostics.causes import cause_rules
from betavi.model.collapse.diagnose import check_can_collapse, diagnose
from betavi.model.collapse.remedies import (
    REMEDIES,
    finish,
    obstacle_to_rescue,
    requested_beta,
    sorted_remedies,
)
from betavi.model.core.training import sibling
from betavi.train import SCVI_SCHEDULE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.diagnostics import CollapseReport
    from betavi.model.core.latent_model import LatentModel

IMPORTANCE_DRAWS = 100
"""Number of importance samples of a cell's likelihood. No benchmark tunes it."""

TRIAL_SHARE = 1 / 16
"""Share of the epochs for the trial of one remedy; not tuned."""

RESERVED = {"beta_schedule", "warmup", "free_bits", "target_rate", "capacity", "collapse_guard",
            "datasplitter_kwargs", *SCVI_SCHEDULE}  # fmt: skip
"""Arguments of ``train`` that the remedies set."""

LEARNED = ("module", "history_", "trainer", "train_indices", "validation_indices", "test_indices",
           "_module_kwargs", "init_params_", "_model_summary_string")  # fmt: skip
"""Attributes of a model that training changes."""


def rescue(
    model: LatentModel,
    max_epochs: int = 100,
    beta: float | None = None,
    remedies: Sequence[str] | None = None,
    show_progress: bool = True,
    **train_kwargs: Any,
) -> RescueReport:
    """Try to activate inactive dimensions, and adopt the best result if it is better.

    Each remedy is tried for 1/16 of the epochs. All except ``"restart"`` start from the present
    weights. Trials are compared by the importance-weighted likelihood of held-out cells. The number
    of active dimensions would not be a fair measure, because noise activates dimensions too. The
    best remedy is trained for the remaining epochs. The model changes only at the end, if a result
    is better than the present model by 2 standard errors. You can interrupt ``rescue`` at any time.

    Parameters
    ----------
    max_epochs
        Total number of epochs, for all trials and for the remaining training of the best remedy.
    beta
        β to train at. If None, the present β. If the present β is too high, the β that
        :meth:`diagnose` advises.
    remedies
        Any of ``"encoder"``, ``"anneal"``, ``"free_bits"`` and ``"restart"``, the keys of
        :data:`betavi.model.REMEDIES`. If None, all remedies, starting with those that treat the
        cause. If None and training cannot repair the cause, no remedy is tried.
    show_progress
        Show progress bars.
    **train_kwargs
        Passed to :meth:`train`.

    Returns
    -------
    Report on the trials, with the remedy that was adopted.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    ValueError
        If the model was trained on a range of β, no cells were held out, a remedy is unknown, or
        there are fewer epochs than remedies.

    References
    ----------
    He et al. (2019), Lagging inference networks and posterior collapse. Fu et al. (2019), Cyclical
    annealing schedule. Kingma et al. (2016), free bits. Jamieson & Talwalkar (2016), Non-stochastic
    best arm identification.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3, beta=100.0)
    >>> model.train(max_epochs=2, collapse_guard=False, enable_progress_bar=False)
    >>> report = model.rescue(max_epochs=3, remedies=["anneal"], show_progress=False)
    >>> report.tried["epochs"].to_dict()
    {'nothing': 0, 'anneal': 1, 'anneal, finished': 3}
    """
    _check_request(max_epochs, remedies, train_kwargs)
    model.refuse_minified("rescue")
    check_can_collapse(model)
    if obstacle := obstacle_to_rescue(model):
        raise ValueError(obstacle)
    before = diagnose(model, show_progress=show_progress)
    names = _remedies_to_try(before) if remedies is None else list(remedies)
    kwargs = {"enable_progress_bar": show_progress, "collapse_guard": False}
    kwargs |= _same_split(model) | train_kwargs
    nothing = _evaluated(model, 0)
    beta = _beta_to_try(model, before) if beta is None else beta
    trials = {"nothing": nothing}
    trials |= _run_trials(model, names, beta, max_epochs, kwargs) if names else {}
    table = pd.DataFrame.from_dict(
        {name: trial.row(nothing) for name, trial in trials.items()}, orient="index"
    )
    chosen = best_remedy(table)
    if chosen == "nothing":
        return RescueReport(table, chosen, before, before)
    adopt_weights_of(model, trials[chosen].model)
    return RescueReport(table, chosen, before, diagnose(model, show_progress=show_progress))


class Trial(NamedTuple):
    """A trained model, and the log-likelihood of each held-out cell, ``(n_cells,)``."""

    model: LatentModel
    epochs: int
    likelihood: np.ndarray
    active_dimensions: int

    def row(self, nothing: Trial) -> dict[str, float]:
        """Return the row of the report, with the gain over ``nothing``."""
        mean, error = gain(self.likelihood, nothing.likelihood)
        return {
            "epochs": self.epochs,
            "beta": self.model.module.settled_beta,
            "log_likelihood": float(self.likelihood.mean()),
            "gain": mean,
            "gain_error": error,
            "active_dimensions": self.active_dimensions,
        }


def _evaluated(model: LatentModel, epochs: int) -> Trial:
    """Evaluate a model on the held-out cells, always with the same random numbers."""
    cells = model.validation_indices
    with model.seeded(0):
        nats = model.get_marginal_ll(
            indices=cells, n_mc_samples=IMPORTANCE_DRAWS, return_mean=False
        )
    loc, variance = model.get_latent_representation(indices=cells, return_dist=True)
    n_active = active_dimensions(loc, np.sqrt(variance))
    return Trial(model, epochs, np.asarray(nats, dtype=float), n_active)


def _run_trials(
    model: LatentModel, names: Sequence[str], beta: float, max_epochs: int, kwargs: dict[str, Any]
) -> dict[str, Trial]:
    """Train a short trial of every remedy, then the best to the end."""
    epochs, trials = max(1, int(TRIAL_SHARE * max_epochs)), {}
    for name in names:
        remedy = REMEDIES[name]
        trial = _copy(model, beta, keep_weights=not remedy.is_fresh)
        remedy.train(trial, epochs, kwargs)
        trials[name] = _evaluated(trial, epochs)
        if trial.trainer.interrupted:
            return trials
    if left := max_epochs - epochs * len(names):
        best = max(trials, key=lambda name: float(trials[name].likelihood.mean()))
        # a copy, because the end may be worse than the trial
        final = _copy(trials[best].model, beta, keep_weights=True)
        finish(final, left, kwargs)
        trials[f"{best}, finished"] = _evaluated(final, epochs + left)
    return trials


def _remedies_to_try(report: CollapseReport) -> list[str]:
    rules = cause_rules()
    causes = {cause.name for cause in report.causes if rules[cause.name].is_trainable}
    has_signal = report.verdict == "collapsed" and report.spectrum.n_factors > 0
    return sorted_remedies(causes) if causes or has_signal else []


def _beta_to_try(model: LatentModel, report: CollapseReport) -> float:
    spectrum, n_latent = report.spectrum, len(report.dimensions)
    if not np.isnan(report.beta) and not spectrum.is_starved(report.beta, n_latent):
        return requested_beta(model)
    return spectrum.beta_that_keeps(n_latent)


def _same_split(model: LatentModel) -> dict[str, Any]:
    split = [model.train_indices, model.validation_indices]
    if getattr(model, "test_indices", None) is not None:
        split.append(model.test_indices)
    return {"datasplitter_kwargs": {"external_indexing": split}}


def _copy(model: LatentModel, beta: float, keep_weights: bool) -> Any:
    copied = sibling(model, beta=beta)
    if keep_weights:
        copied.module.load_state_dict(model.module.state_dict())
    copied.to_device(model.device)
    copied.validation_indices = model.validation_indices
    return copied


def adopt_weights_of(model: LatentModel, trial: LatentModel) -> None:
    """Replace a model's weights, and all else that training changed, by the values of a trial."""
    for name in LEARNED:
        if hasattr(trial, name):
            setattr(model, name, getattr(trial, name))


def _check_request(
    max_epochs: int, remedies: Sequence[str] | None, train_kwargs: dict[str, Any]
) -> None:
    names = list(REMEDIES) if remedies is None else remedies
    for name in names:
        lookup(REMEDIES, name, "remedies")
    if max_epochs < len(names):
        raise ValueError(
            f"`max_epochs` is {max_epochs}, but {len(names)} remedies need at least one epoch "
            "each. Increase `max_epochs`, or name fewer `remedies`."
        )
    if reserved := RESERVED & {*train_kwargs, *(train_kwargs.get("plan_kwargs") or {})}:
        raise ValueError(f"Each remedy sets {', '.join(sorted(reserved))} itself. Leave these out.")
