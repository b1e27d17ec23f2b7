"""Repairing a collapsed latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd
from scvi.utils import unsupported_if_adata_minified

from betavi._tables import lookup
from betavi.diagnostics import RescueReport, active_dimensions, best_remedy, gain
from betavi.model.diagnose import DiagnoseMixin
from betavi.model.training import TrainingMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from betavi.diagnostics import CollapseReport

HARMLESS = {"too_many_dimensions", "too_few_counts"}
"""Causes that no training mends."""

FREE_BITS = 0.2
IMPORTANCE_DRAWS = 100
RESERVED = {"beta_schedule", "warmup", "free_bits", "target_rate", "capacity", "collapse_guard",
            "datasplitter_kwargs"}  # fmt: skip
ENCODER_SHARE = 1 / 3
"""Share of the epochs for which the encoder is trained alone."""


class RescueMixin(TrainingMixin, DiagnoseMixin):
    """Remedies for posterior collapse, each on trial."""

    @unsupported_if_adata_minified
    def rescue(
        self,
        max_epochs: int = 50,
        beta: float | None = None,
        remedies: Sequence[str] | None = None,
        show_progress: bool = True,
        **train_kwargs: Any,
    ) -> RescueReport:
        """Try to bring dead dimensions to life, and keep the best of what was tried, or nothing.

        Every remedy starts from the weights the model has now, has as many epochs, and is judged
        by the importance-weighted likelihood of the cells held out in training. Only if one is
        better does the model change; until then it is left alone, also if you interrupt.

        Parameters
        ----------
        max_epochs
            Epochs of each remedy.
        beta
            The weight of the rate to train at; if None, the present one or, where that is too much
            for the signal, the one that :meth:`diagnose` names.
        remedies
            Which to try: ``"encoder"``, ``"anneal"``, ``"free_bits"``, ``"restart"``, keys of
            :data:`betavi.model.REMEDIES`. If None, all of them if the latent space has collapsed for
            a reason that training can mend, and none otherwise.
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
            If the model is of many β, is not trained, held no cells out, or a remedy is unknown.

        References
        ----------
        He et al. (2019), Lagging inference networks and posterior collapse. Fu et al. (2019),
        Cyclical annealing schedule. Kingma et al. (2016), free bits.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3, beta=100.0)
        >>> model.train(max_epochs=2, collapse_guard=False, enable_progress_bar=False)
        >>> report = model.rescue(max_epochs=2, remedies=["anneal"], show_progress=False)
        >>> report.tried.index.tolist()
        ['nothing', 'anneal']
        """
        names = [] if remedies is None else list(remedies)
        for name in names:
            lookup(REMEDIES, name, "remedies")
        said = RESERVED.intersection(train_kwargs)
        if said:
            raise ValueError(f"Each remedy sets its own {', '.join(sorted(said))}: leave it out.")
        self._refuse_to_rescue()
        before = self.diagnose(show_progress=show_progress)
        if remedies is None and self._could_be_mended(before):
            names = list(REMEDIES)
        beta = self._beta_to_try(before) if beta is None else beta
        now = self._held_out_likelihood()
        rows = {"nothing": self._row(now, now)}
        trials: dict[str, Self] = {}
        for name in names:
            remedy = REMEDIES[name]
            trial = self._trial(beta, remedy.is_fresh)
            quiet = {"enable_progress_bar": show_progress, "collapse_guard": False}
            remedy.train(trial, max_epochs, quiet | self._same_split() | train_kwargs)
            trials[name], rows[name] = trial, trial._row(trial._held_out_likelihood(), now)
            if trial.trainer.interrupted:
                break
        tried = pd.DataFrame.from_dict(rows, orient="index")
        chosen = best_remedy(tried)
        if chosen == "nothing":
            return RescueReport(tried, chosen, before, before)
        self._become(trials[chosen])
        return RescueReport(tried, chosen, before, self.diagnose(show_progress=show_progress))

    def _refuse_to_rescue(self) -> None:
        self._refuse_to_diagnose()
        if not all(parameter.requires_grad for parameter in self.module.parameters()):
            raise ValueError(
                "Some weights of this model are frozen, as those of a query are, and a rescue would "
                "train them. Rescue the reference."
            )
        if not self.module.dial.is_fixed:
            raise ValueError(
                "A model of many β collapses at the high ones, as it should: choose another with "
                "suggest_beta() and ask for it, beta=..."
            )
        if getattr(self, "validation_indices", None) is None or not len(self.validation_indices):
            raise ValueError(
                "The model held no cells out to judge remedies by: train it with train_size=0.9."
            )

    def _could_be_mended(self, report: CollapseReport) -> bool:
        causes = {cause.name for cause in report.causes} - HARMLESS
        return bool(causes) or (report.verdict == "collapsed" and report.spectrum.n_factors > 0)

    def _beta_to_try(self, report: CollapseReport) -> float:
        spectrum = report.spectrum
        if spectrum.alive_at(report.beta) == spectrum.n_factors:
            return self._asked_beta()
        return spectrum.beta_that_keeps(len(report.dimensions))

    def _same_split(self) -> dict[str, Any]:
        split = [self.train_indices, self.validation_indices]
        if getattr(self, "test_indices", None) is not None:
            split.append(self.test_indices)
        return {"datasplitter_kwargs": {"external_indexing": split}}

    def _trial(self, beta: float, is_fresh: bool) -> Self:
        """Return another model, of the same weights or of new ones."""
        trial = self.sibling(beta=beta)
        if not is_fresh:
            trial.module.load_state_dict(self.module.state_dict())
        trial.to_device(self.device)
        return trial

    def _held_out_likelihood(self) -> np.ndarray:
        """Estimate the log-likelihood of each cell held out, always at the same draws."""
        with self._own_draws(seed=0):
            found = self.get_marginal_ll(
                indices=self.validation_indices, n_mc_samples=IMPORTANCE_DRAWS, return_mean=False
            )
        return np.asarray(found, dtype=float)

    def _row(self, likelihood: np.ndarray, before: np.ndarray) -> dict[str, float]:
        mean, error = gain(likelihood, before)
        loc, variance = self.get_latent_representation(
            indices=self.validation_indices, return_dist=True
        )
        return {
            "beta": self.module.settled_beta,
            "log_likelihood": float(likelihood.mean()),
            "gain": mean,
            "gain_error": error,
            "active_dimensions": active_dimensions(loc, np.sqrt(variance)),
        }

    def _become(self, trial: Self) -> None:
        """Take over what a trial has learned."""
        kept = ("module", "history_", "trainer", "train_indices", "validation_indices",
                "test_indices", "_module_kwargs", "init_params_", "_model_summary_string")  # fmt: skip
        for name in kept:
            if hasattr(trial, name):
                setattr(self, name, getattr(trial, name))


def _encoder_first(model: TrainingMixin, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Let the encoder catch up with a decoder that stands still, then train both (He et al., 2019)."""
    alone = max(1, round(ENCODER_SHARE * max_epochs))
    still = [p for p in model.module.parameters() if p.requires_grad]
    moving = {id(p) for p in model.module.z_encoders.parameters()}
    still = [p for p in still if id(p) not in moving]
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        model.train(alone, beta_schedule="constant", **kwargs)
    finally:
        for parameter in still:
            parameter.requires_grad_(True)
    if not model.trainer.interrupted:
        model.train(max(1, max_epochs - alone), **kwargs)


def _anneal(model: TrainingMixin, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Let β climb from 0 four times over half of the run (Fu et al., 2019)."""
    model.train(max_epochs, beta_schedule="cyclical", warmup=0.5, **kwargs)


def _free_bits(model: TrainingMixin, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Leave each dimension nats that are not pressed (Kingma et al., 2016)."""
    model.train(max_epochs, free_bits=FREE_BITS, **kwargs)


def _restart(model: TrainingMixin, max_epochs: int, kwargs: dict[str, Any]) -> None:
    """Train as ever."""
    model.train(max_epochs, **kwargs)


class Remedy(NamedTuple):
    """How a trial is trained, and whether with new weights."""

    train: Callable[[Any, int, dict[str, Any]], None]
    is_fresh: bool = False


REMEDIES: dict[str, Remedy] = {
    "encoder": Remedy(_encoder_first),
    "anneal": Remedy(_anneal),
    "free_bits": Remedy(_free_bits),
    "restart": Remedy(_restart, is_fresh=True),
}
"""Remedies by the name a user gives, ``remedies=``, in the order in which they are tried."""
