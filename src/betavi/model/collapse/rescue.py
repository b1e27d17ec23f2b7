"""Repairing a collapsed latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from scvi.utils import unsupported_if_adata_minified

from betavi._tables import lookup
from betavi.diagnostics import RescueReport, active_dimensions, best_remedy, gain
from betavi.model.collapse.remedies import REMEDIES, finish, in_order_of_worth
from betavi.model.collapse.report import DiagnosisMixin
from betavi.train import SCVI_SCHEDULE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.diagnostics import CollapseReport

HARMLESS = {"too_many_dimensions", "too_few_counts", "covariates_explain"}
"""Causes that no training mends."""

IMPORTANCE_DRAWS = 100
TRIAL_SHARE = 1 / 16
"""Share of the epochs that the trial of one remedy takes."""

RESERVED = {"beta_schedule", "warmup", "free_bits", "target_rate", "capacity", "collapse_guard",
            "datasplitter_kwargs", *SCVI_SCHEDULE}  # fmt: skip


class RescueMixin(DiagnosisMixin):
    """Remedies for posterior collapse, each on trial."""

    @unsupported_if_adata_minified
    def rescue(
        self,
        max_epochs: int = 100,
        beta: float | None = None,
        remedies: Sequence[str] | None = None,
        show_progress: bool = True,
        **train_kwargs: Any,
    ) -> RescueReport:
        """Try to bring dead dimensions to life, and keep the best of what was tried, or nothing.

        Every remedy starts from the weights the model has now, has a sixteenth of the epochs, and
        is judged by the importance-weighted likelihood of the cells held out in training; how many
        dimensions are active is told, and decides nothing, as noise fills dimensions too. The best
        is trained for the epochs that are
        left. Only if that or a trial is surely better does the model change; until then it is left
        alone, also if you interrupt.

        Parameters
        ----------
        max_epochs
            Epochs of everything together: the trials, and the best of them to its end.
        beta
            The weight of the rate to train at; if None, the present one or, where that is too much
            for the signal, the one that :meth:`diagnose` names.
        remedies
            Which to try: ``"encoder"``, ``"anneal"``, ``"free_bits"``, ``"restart"``, keys of
            :data:`betavi.model.REMEDIES`. If None, all of them, first those made for the cause that
            was found, if the latent space has collapsed for a reason that training can mend, and
            none otherwise.
        show_progress
            Show bars.
        **train_kwargs
            Further arguments of :meth:`train`.

        Returns
        -------
        What was tried, and what was kept.

        Raises
        ------
        ValueError
            If the model is of many β, is not trained, held no cells out, a remedy is unknown, or
            there are fewer epochs than remedies.

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
        _check_rescue(max_epochs, remedies, train_kwargs)
        self._refuse_to_rescue()
        before = self.diagnose(show_progress=show_progress)
        names = self._worth_trying(before) if remedies is None else list(remedies)
        kwargs = {"enable_progress_bar": show_progress, "collapse_guard": False}
        kwargs |= self._same_split() | train_kwargs
        nothing = _Tried(self, 0, self._held_out_likelihood())
        beta = self._beta_to_try(before) if beta is None else beta
        trials = self._trials(names, beta, max_epochs, kwargs) if names else {}
        rows = {"nothing": nothing, **trials}
        table = pd.DataFrame.from_dict(
            {name: row.judged_by(nothing) for name, row in rows.items()}, orient="index"
        )
        chosen = best_remedy(table)
        if chosen == "nothing":
            return RescueReport(table, chosen, before, before)
        self._become(rows[chosen].model)
        return RescueReport(table, chosen, before, self.diagnose(show_progress=show_progress))

    def _trials(
        self, names: Sequence[str], beta: float, max_epochs: int, kwargs: dict[str, Any]
    ) -> dict[str, _Tried]:
        """Try every remedy for a while, and the best to its end."""
        share, tried = max(1, int(TRIAL_SHARE * max_epochs)), {}
        for name in names:
            remedy = REMEDIES[name]
            trial = self._copy(beta, keeps_weights=not remedy.is_fresh)
            remedy.train(trial, share, kwargs)
            tried[name] = _Tried(trial, share, trial._held_out_likelihood())
            if trial.trainer.interrupted:
                return tried
        left = max_epochs - share * len(names)
        if left:
            best = max(tried, key=lambda name: float(tried[name].likelihood.mean()))
            # a copy, as the end may be worse than the trial
            final = tried[best].model._copy(beta, keeps_weights=True)
            finish(final, left, kwargs)
            tried[f"{best}, finished"] = _Tried(final, share + left, final._held_out_likelihood())
        return tried

    def _refuse_to_rescue(self) -> None:
        self._refuse_to_diagnose()
        if obstacle := self._obstacle_to_rescue():
            raise ValueError(obstacle)

    def _worth_trying(self, report: CollapseReport) -> list[str]:
        causes = {cause.name for cause in report.causes} - HARMLESS
        has_hope = report.verdict == "collapsed" and report.spectrum.n_factors > 0
        return in_order_of_worth(causes) if causes or has_hope else []

    def _beta_to_try(self, report: CollapseReport) -> float:
        spectrum = report.spectrum
        is_held = np.isnan(report.beta)
        if not is_held and not spectrum.is_starved(report.beta, len(report.dimensions)):
            return self._asked_beta()
        return spectrum.beta_that_keeps(len(report.dimensions))

    def _same_split(self) -> dict[str, Any]:
        split = [self.train_indices, self.validation_indices]
        if getattr(self, "test_indices", None) is not None:
            split.append(self.test_indices)
        return {"datasplitter_kwargs": {"external_indexing": split}}

    def _copy(self, beta: float, keeps_weights: bool) -> Self:
        """Return another model, of the same weights or of new ones."""
        copied = self.sibling(beta=beta)
        if keeps_weights:
            copied.module.load_state_dict(self.module.state_dict())
        copied.to_device(self.device)
        copied.validation_indices = self.validation_indices
        return copied

    def _held_out_likelihood(self) -> np.ndarray:
        """Estimate the log-likelihood of each cell held out, always at the same draws."""
        with self._own_draws(seed=0):
            found = self.get_marginal_ll(
                indices=self.validation_indices, n_mc_samples=IMPORTANCE_DRAWS, return_mean=False
            )
        return np.asarray(found, dtype=float)

    def _held_out_dimensions(self) -> int:
        loc, variance = self.get_latent_representation(
            indices=self.validation_indices, return_dist=True
        )
        return active_dimensions(loc, np.sqrt(variance))

    def _become(self, trial: Self) -> None:
        """Take over what a trial has learned."""
        kept = ("module", "history_", "trainer", "train_indices", "validation_indices",
                "test_indices", "_module_kwargs", "init_params_", "_model_summary_string")  # fmt: skip
        for name in kept:
            if hasattr(trial, name):
                setattr(self, name, getattr(trial, name))


class _Tried:
    """A model that was tried, and what it is worth."""

    def __init__(self, model: RescueMixin, epochs: int, likelihood: np.ndarray) -> None:
        self.model, self.epochs, self.likelihood = model, epochs, likelihood
        self.active_dimensions = model._held_out_dimensions()

    def judged_by(self, nothing: _Tried) -> dict[str, float]:
        mean, error = gain(self.likelihood, nothing.likelihood)
        return {
            "epochs": self.epochs,
            "beta": self.model.module.settled_beta,
            "log_likelihood": float(self.likelihood.mean()),
            "gain": mean,
            "gain_error": error,
            "active_dimensions": self.active_dimensions,
        }


def _check_rescue(
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
