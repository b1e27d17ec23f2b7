"""Molecular cross-validation: hold out molecules and score how well models predict them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from sklearn.model_selection import ParameterGrid

from betavi._tables import check_whole
from betavi.diagnostics import BASELINES, NULL, HeldOutMolecules, report_denoising, thin
from betavi.model.denoising.estimate import ESTIMATES, cells_with
from betavi.model.denoising.retrain import expected_counts, molecule_counts, trained_on

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
    """Train on a part of the molecules, and score how well the others are predicted.

    This is molecular cross-validation: every molecule is held out with a probability, a model
    like this one is trained on those that are left, and its denoised values are scored by those
    that are not. Beside it are the counts themselves, each gene's mean times the cell's depth,
    smoothing over nearest neighbours, and truncated SVD. This model is left as it is.

    With several modalities, each is judged in the cells that have it. Modalities of which only
    detection is modelled, or that are no whole numbers, are read as they are and not judged.

    Parameters
    ----------
    candidates
        Values of the constructor's arguments to choose between, all combinations of them, such as
        ``{"gene_likelihood": ["zinb", "nb"], "n_latent": [5, 10]}``. β of a model of many needs
        no training of its own. Only this model's if None.
    fraction
        Share of the molecules to hold out.
    n_samples
        Number of draws of z; 1 is the mean of z.
    seed
        Seed of the split.
    show_progress
        Show bars.
    **train_kwargs
        Passed to ``train``; ``max_epochs`` is that of this model if it was trained.

    Returns
    -------
    Scores of methods and of genes, and which genes to trust, a
    :class:`betavi.diagnostics.DenoisingReport`; with several modalities a dictionary of them.

    Raises
    ------
    ValueError
        If the registered values are no counts, the object is minified, or a candidate makes no
        model.

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
    model.refuse_minified("cross_validate_denoising")
    counts = molecule_counts(model)
    check_whole("n_samples", n_samples)
    grid = _grid(model, candidates, list(counts))
    batch = model.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
    parts = {
        name: HeldOutMolecules(
            thin(matrix, fraction, seed), batch[cells_with(model, model.adata, name)]
        )
        for name, matrix in counts.items()
    }
    scores = {name: _baselines(part, seed) for name, part in parts.items()}
    kept = {name: part.thinned.kept for name, part in parts.items()}
    models: dict[str, LatentModel] = {}
    for label, arguments, beta in grid:
        # those that differ in the β of a model of many share it
        key = repr(sorted(arguments.items()))
        if key not in models:
            models[key] = trained_on(model, kept, arguments, show_progress, train_kwargs)
        for name, part in parts.items():
            with models[key].at_beta(beta):
                for estimate in ESTIMATES:
                    rows = expected_counts(models[key], name, estimate, n_samples, show_progress)
                    scores[name][f"{estimate}{label}"] = part.score(rows)
    return model.adapter.bare(
        {
            name: report_denoising(
                part,
                scores[name],
                [method for method in scores[name] if method not in BASELINES],
                model.adapter.part(model.adata, name).var_names,
            )
            for name, part in parts.items()
        }
    )


def _baselines(held_out: HeldOutMolecules, seed: int) -> dict[str, DenoisingScore]:
    scores = {
        name: held_out.score(rows(held_out.thinned.kept, seed))
        for name, rows in BASELINES.items()
        if name != NULL
    }
    return scores | {NULL: held_out.score_null()}


def _grid(
    model: LatentModel, choices: Mapping[str, Sequence[Any]] | None, names: Sequence[str]
) -> list[tuple[str, dict[str, Any], float | None]]:
    """Return label, constructor's arguments and β of each candidate."""
    choices = {} if choices is None else choices
    if not isinstance(choices, Mapping):
        raise ValueError("candidates are lists by argument: {'gene_likelihood': ['zinb', 'nb']}.")
    for argument, values in choices.items():
        if isinstance(values, str) or not hasattr(values, "__iter__") or not len(values):
            raise ValueError(f"candidates of {argument} are a list of one or more, not {values!r}.")
    grid = []
    for point in ParameterGrid(dict(choices)):
        label = ", ".join(f"{argument}={value}" for argument, value in point.items())
        one_of_many = not model.module.beta_condition.is_fixed and isinstance(
            point.get("beta"), Real
        )
        beta = point.pop("beta") if one_of_many else None
        if beta is not None:
            model.module.check_beta(beta)
        # a candidate that makes no model, or expects no counts, is refused before any is trained
        module = model.sibling(**point).module
        if any(not module.likelihood(name).is_of_counts for name in names):
            raise ValueError(
                "The likelihood 'bernoulli' says whether there are molecules, and not how many."
            )
        grid.append((f", {label}" if label else "", point, beta))
    return grid
