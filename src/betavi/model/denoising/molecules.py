"""Molecules held out of every modality, and models that are to foretell them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from scvi import REGISTRY_KEYS
from sklearn.model_selection import ParameterGrid

from betavi._tables import check_whole
from betavi.diagnostics import BASELINES, NULL, HeldOutMolecules, report_denoising, thin
from betavi.model.denoising.estimate import ESTIMATES
from betavi.model.denoising.retrain import RetrainMixin

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from scipy import sparse

    from betavi.diagnostics import DenoisingReport, DenoisingScore


class Asking(NamedTuple):
    """What a user says of how to cross-validate."""

    candidates: Mapping[str, Sequence[Any]] | None
    fraction: float
    n_samples: int
    seed: int
    show_progress: bool
    train_kwargs: dict[str, Any]


class Candidate(NamedTuple):
    """Arguments of a model, apart from the β that it is asked at."""

    name: str
    arguments: dict[str, Any]
    beta: float | None


class HeldOutMixin(RetrainMixin):
    """Trains candidates on a part of the molecules, and scores them by the others."""

    def _cross_validated(
        self,
        counts: Mapping[str, sparse.csr_matrix],
        features: Mapping[str, pd.Index],
        ask: Asking,
    ) -> dict[str, DenoisingReport]:
        """Return a report for each modality of which there are counts."""
        check_whole("n_samples", ask.n_samples)
        grid = self._candidates(ask.candidates, list(counts))
        batch = self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
        held_out = {
            name: HeldOutMolecules(
                thin(matrix, ask.fraction, ask.seed), batch[self._cells_of(name)]
            )
            for name, matrix in counts.items()
        }
        scores = {
            name: {
                baseline: part.score(rows(part.thinned.kept, ask.seed))
                for baseline, rows in BASELINES.items()
                if baseline != NULL
            }
            | {NULL: part.score_null()}
            for name, part in held_out.items()
        }
        models: dict[str, Any] = {}
        kept = {name: part.thinned.kept for name, part in held_out.items()}
        for candidate in grid:
            # those that differ in the β of a model of many share it
            key = repr(sorted(candidate.arguments.items()))
            if key not in models:
                models[key] = self._trained_on(
                    kept, candidate.arguments, ask.show_progress, ask.train_kwargs
                )
            for name, part in held_out.items():
                scores[name] |= _scored(models[key], name, candidate, part, ask)
        return {
            name: report_denoising(
                part, scores[name], [n for n in scores[name] if n not in BASELINES], features[name]
            )
            for name, part in held_out.items()
        }

    def _candidates(
        self, choices: Mapping[str, Sequence[Any]] | None, names: Sequence[str]
    ) -> list[Candidate]:
        choices = {} if choices is None else choices
        if not isinstance(choices, Mapping):
            raise ValueError(
                "candidates are lists by argument: {'gene_likelihood': ['zinb', 'nb']}."
            )
        for argument, values in choices.items():
            if isinstance(values, str) or not hasattr(values, "__iter__") or not len(values):
                raise ValueError(
                    f"candidates of {argument} are a list of one or more, not {values!r}."
                )
        grid = []
        for point in ParameterGrid(dict(choices)):
            said = ", ".join(f"{argument}={value}" for argument, value in point.items())
            one_of_many = not self.module.dial.is_fixed and isinstance(point.get("beta"), Real)
            beta = point.pop("beta") if one_of_many else None
            if beta is not None:
                self.module.check_beta(beta)
            # what makes no model, or expects no counts, is told before any is trained
            likelihoods = self.sibling(**point).module.likelihoods
            if any(not likelihoods[name].is_of_counts for name in names):
                raise ValueError(
                    "The likelihood 'bernoulli' says whether there are molecules, and not how many."
                )
            grid.append(Candidate(f", {said}" if said else "", point, beta))
        return grid


def _scored(
    model: Any, name: str, candidate: Candidate, held_out: HeldOutMolecules, ask: Asking
) -> dict[str, DenoisingScore]:
    scores = {}
    with model._at(candidate.beta):
        for estimate in ESTIMATES:
            rows = model._expected_counts(name, estimate, ask.n_samples, ask.show_progress)
            scores[f"{estimate}{candidate.name}"] = held_out.score(rows)
    return scores
