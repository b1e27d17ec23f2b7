"""Rescue of a collapsed latent space: remedies on trial, and the best of them trained to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from betavi._tables import lookup
from betavi.diagnostics import RescueReport, active_dimensions, best_remedy, gain
from betavi.model.collapse.diagnose import check_can_collapse, diagnose
from betavi.model.collapse.remedies import (
    REMEDIES,
    finish,
    in_order_of_worth,
    obstacle_to_rescue,
    requested_beta,
)
from betavi.model.core.training import sibling
from betavi.train import SCVI_SCHEDULE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.diagnostics import CollapseReport
    from betavi.model.core.latent_model import LatentModel

HARMLESS = {"too_many_dimensions", "too_few_counts", "covariates_explain"}
"""Causes that training cannot repair."""

IMPORTANCE_DRAWS = 100
TRIAL_SHARE = 1 / 16
"""Share of the epochs that the trial of one remedy takes."""

RESERVED = {"beta_schedule", "warmup", "free_bits", "target_rate", "capacity", "collapse_guard",
            "datasplitter_kwargs", *SCVI_SCHEDULE}  # fmt: skip
"""Arguments of training that the remedies set."""

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
    """Try to make inactive dimensions active, and keep the best of what was tried, or nothing.

    Every remedy starts from the present weights, takes a sixteenth of the epochs, and is judged by
    the importance-weighted likelihood of held-out cells: noise makes dimensions active too. The best
    remedy is trained for the remaining epochs. The model changes at the end, if a result is surely
    better; you can interrupt at any time.

    Parameters
    ----------
    max_epochs
        Number of epochs of all trials, and of the best of them to its end.
    beta
        Weight of the rate to train at. If None, the present one or, where that is too much for the
        signal, the one that :meth:`diagnose` names.
    remedies
        ``"encoder"``, ``"anneal"``, ``"free_bits"``, ``"restart"``: keys of
        :data:`betavi.model.REMEDIES`. If None, all, first those made for the cause that was found;
        none if training cannot repair the cause.
    show_progress
        Show progress bars.
    **train_kwargs
        Passed to :meth:`train`.

    Returns
    -------
    What was tried, and what was kept.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    ValueError
        If it is of many β, held no cells out, a remedy is unknown, or there are fewer epochs than
        remedies.

    References
    ----------
    He et al. (2019), Lagging inference networks and posterior collapse. Fu et al. (2019),
    Cyclical annealing schedule. Kingma et al. (2016), free bits. Jamieson & Talwalkar (2016),
    Non-stochastic best arm identification.

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
    names = _worth_trying(before) if remedies is None else list(remedies)
    kwargs = {"enable_progress_bar": show_progress, "collapse_guard": False}
    kwargs |= _same_split(model) | train_kwargs
    nothing = _judged(model, 0)
    beta = _beta_to_try(model, before) if beta is None else beta
    trials = _tried(model, names, beta, max_epochs, kwargs) if names else {}
    trials = {"nothing": nothing, **trials}
    table = pd.DataFrame.from_dict(
        {name: trial.row(nothing) for name, trial in trials.items()}, orient="index"
    )
    chosen = best_remedy(table)
    if chosen == "nothing":
        return RescueReport(table, chosen, before, before)
    adopt_weights_of(model, trials[chosen].model)
    return RescueReport(table, chosen, before, diagnose(model, show_progress=show_progress))


class Trial(NamedTuple):
    """A model that was tried, and the log-likelihood of each held-out cell."""

    model: LatentModel
    epochs: int
    likelihood: np.ndarray
    active_dimensions: int

    def row(self, nothing: Trial) -> dict[str, float]:
        """Return the row of the report, with the gain over doing nothing."""
        mean, error = gain(self.likelihood, nothing.likelihood)
        return {
            "epochs": self.epochs,
            "beta": self.model.module.settled_beta,
            "log_likelihood": float(self.likelihood.mean()),
            "gain": mean,
            "gain_error": error,
            "active_dimensions": self.active_dimensions,
        }


def _judged(model: LatentModel, epochs: int) -> Trial:
    """Judge a model by the cells held out, always at the same draws."""
    cells = model.validation_indices
    with model.seeded(0):
        nats = model.get_marginal_ll(
            indices=cells, n_mc_samples=IMPORTANCE_DRAWS, return_mean=False
        )
    loc, variance = model.get_latent_representation(indices=cells, return_dist=True)
    return Trial(
        model, epochs, np.asarray(nats, dtype=float), active_dimensions(loc, np.sqrt(variance))
    )


def _tried(
    model: LatentModel, names: Sequence[str], beta: float, max_epochs: int, kwargs: dict[str, Any]
) -> dict[str, Trial]:
    """Try every remedy for a while, and the best to its end."""
    share, tried = max(1, int(TRIAL_SHARE * max_epochs)), {}
    for name in names:
        remedy = REMEDIES[name]
        trial = _copy(model, beta, keep_weights=not remedy.is_fresh)
        remedy.train(trial, share, kwargs)
        tried[name] = _judged(trial, share)
        if trial.trainer.interrupted:
            return tried
    if left := max_epochs - share * len(names):
        best = max(tried, key=lambda name: float(tried[name].likelihood.mean()))
        # a copy, as the end may be worse than the trial
        final = _copy(tried[best].model, beta, keep_weights=True)
        finish(final, left, kwargs)
        tried[f"{best}, finished"] = _judged(final, share + left)
    return tried


def _worth_trying(report: CollapseReport) -> list[str]:
    causes = {cause.name for cause in report.causes} - HARMLESS
    has_hope = report.verdict == "collapsed" and report.spectrum.n_factors > 0
    return in_order_of_worth(causes) if causes or has_hope else []


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
    """Return another model, of the same weights or of new ones."""
    copied = sibling(model, beta=beta)
    if keep_weights:
        copied.module.load_state_dict(model.module.state_dict())
    copied.to_device(model.device)
    copied.validation_indices = model.validation_indices
    return copied


def adopt_weights_of(model: LatentModel, trial: LatentModel) -> None:
    """Replace the weights of a model by those of a trial, and what else training has changed."""
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
            f"max_epochs={max_epochs} is less than an epoch for each of {len(names)} remedies: give "
            "more, or name fewer, remedies=."
        )
    said = RESERVED.intersection({*train_kwargs, *(train_kwargs.get("plan_kwargs") or {})})
    if said:
        raise ValueError(f"Each remedy sets its own {', '.join(sorted(said))}: leave it out.")
