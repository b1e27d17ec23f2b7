"""Molecular cross-validation: hold out molecules and score how well models predict them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from sklearn.model_selection import ParameterGrid

from betavi.diagnostics import (
    BASELINES,
    NULL,
    HeldOutMolecules,
    binomial_error,
    report_denoising,
    thin,
)
from betavi.model.denoising.estimate import ESTIMATES, cells_with
from betavi.model.denoising.retrain import denoised_moments, molecule_counts, trained_on
from betavi.model.setup.arguments import check_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.diagnostics import DenoisingScore
    from betavi.model.core.latent_model import LatentModel


def cross_validate_denoising(
    model: LatentModel,
    candidates: Mapping[str, Sequence[Any]] | None = None,
    fraction: float = 0.1,
    n_samples: int = 1,
    seed: int = 0,
    show_progress: bool = True,
    **train_kwargs: Any,
) -> Any:
    """Score denoising by molecular cross-validation.

    Every molecule is held out with the same probability. A new model with the same settings is
    trained on the other molecules. The denoised values of the new model are scored on the held-out
    molecules. The baselines are the counts themselves, the mean of each gene times the depth of the
    cell, smoothing over nearest neighbours, and truncated SVD. This model is not changed.

    With several modalities, each modality is scored in the cells that have it. Two kinds of
    modalities are not scored, and keep all their values: those with non-integer values, and those
    whose likelihood models only detection.

    Parameters
    ----------
    candidates
        Arguments of the model, each with a list of values to compare, for example
        ``{"gene_likelihood": ["zinb", "nb"], "n_latent": [5, 10]}``. All combinations are scored.
        For a model trained on a range of β, all values of β are scored with one training run. If
        None, only the arguments of this model are scored.
    fraction
        Share of the molecules to hold out.
    n_samples
        Number of posterior samples. With 1, the posterior mean is used.
    seed
        Seed of the split of the molecules.
    show_progress
        Show progress bars.
    **train_kwargs
        Passed to ``train``. If this model was trained, the default of ``max_epochs`` is the same
        number of epochs.

    Returns
    -------
    A :class:`betavi.diagnostics.DenoisingReport` with the scores of methods and genes, and with the
    genes whose denoised values can be trusted. With several modalities, a dictionary of reports.

    Raises
    ------
    ValueError
        If the registered values are not counts, the object is minified, or a candidate is invalid.

    References
    ----------
    Batson, Royer & Webber (2019), Molecular cross-validation for single-cell RNA-seq.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> report = model.cross_validate_denoising(max_epochs=2, show_progress=False)
    >>> report.chosen in ("posterior", "mean"), report.genes["trusted"].dtype
    (True, dtype('bool'))
    """
    model.refuse_images(
        "cross_validate_denoising", "Judge denoised images on a second exposure of the same cells."
    )
    check_arguments({"n_samples": n_samples, "seed": seed, "fraction": fraction})
    model.refuse_minified("cross_validate_denoising")
    counts = molecule_counts(model)
    grid = _grid(model, candidates, list(counts))
    batch = model.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
    parts = {}
    for name, matrix in counts.items():
        cells = cells_with(model, model.adata, name)
        parts[name] = HeldOutMolecules(thin(matrix, fraction, seed), batch[cells])
    scores = {name: _baselines(part, seed) for name, part in parts.items()}
    training_counts = {name: part.thinned.kept for name, part in parts.items()}
    models: dict[str, LatentModel] = {}
    runs: dict[str, tuple[LatentModel, float | None, str]] = {}
    for label, arguments, beta in grid:
        # candidates that differ only in β share a model trained on a range of β
        key = repr(sorted(arguments.items()))
        if key not in models:
            models[key] = trained_on(model, training_counts, arguments, show_progress, train_kwargs)
        for name, part in parts.items():
            with models[key].at_beta(beta):
                for estimate in ESTIMATES:
                    runs[f"{estimate}{label}"] = models[key], beta, estimate
                    moments = denoised_moments(
                        models[key], name, estimate, n_samples, show_progress
                    )
                    scores[name][f"{estimate}{label}"] = part.score(mean for mean, _ in moments)
    reports = {}
    for name, part in parts.items():
        methods = [method for method in scores[name] if method not in BASELINES]
        features = model.adapter.part(model.adata, name).var_names
        report = reports[name] = report_denoising(part, scores[name], methods, features)
        best, beta, estimate = runs[report.chosen]
        with best.at_beta(beta):
            coverage = part.coverage(
                denoised_moments(best, name, estimate, n_samples, show_progress)
            )
        report.genes["coverage"] = coverage
        report.genes["coverage_error"] = binomial_error(coverage, part.thinned.kept.shape[0])
    return model.adapter.bare(reports)


def _baselines(held_out: HeldOutMolecules, seed: int) -> dict[str, DenoisingScore]:
    scores = {
        name: held_out.score(rows(held_out.thinned.kept, seed))
        for name, rows in BASELINES.items()
        if name != NULL
    }
    return scores | {NULL: held_out.score_null()}


def _grid(
    model: LatentModel, candidates: Mapping[str, Sequence[Any]] | None, names: Sequence[str]
) -> list[tuple[str, dict[str, Any], float | None]]:
    """Return the label, constructor's arguments and β of each candidate."""
    candidates = {} if candidates is None else candidates
    if not isinstance(candidates, Mapping):
        raise ValueError(
            "`candidates` must be a dictionary such as {'n_latent': [5, 10]}, not "
            f"{candidates!r}."
        )
    for name, values in candidates.items():
        if isinstance(values, str) or not hasattr(values, "__iter__") or not len(values):
            raise ValueError(f"`candidates[{name!r}]` must be a non-empty list, not {values!r}.")
    has_beta_range = not model.module.beta_condition.is_fixed
    grid = []
    for arguments in ParameterGrid(dict(candidates)):
        label = ", ".join(f"{argument}={value}" for argument, value in arguments.items())
        is_in_range = has_beta_range and isinstance(arguments.get("beta"), Real)
        beta = arguments.pop("beta") if is_in_range else None
        if beta is not None:
            model.module.check_beta(beta)
        # invalid candidates must fail before any is trained
        module = model.sibling(**arguments).module
        if any(not module.likelihood(name).is_of_counts for name in names):
            raise ValueError(
                "`candidates` has 'bernoulli', which models detection. Leave 'bernoulli' out."
            )
        grid.append((f", {label}" if label else "", arguments, beta))
    return grid
