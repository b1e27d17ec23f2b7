"""Comparison of likelihoods by the probabilities of the same integer counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from betavi.data import COUNTS
from betavi.likelihoods import LIKELIHOODS
from betavi.metrics.pca import LinearModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from betavi.model import BetaVI, JointVI

    CountModel: TypeAlias = BetaVI | JointVI

# training arguments that constrain the rate, which an autoencoder does not have
CONSTRAINTS = {"free_bits", "target_rate", "capacity"}


def compare_likelihoods(
    models: CountModel | Mapping[str, CountModel],
    likelihoods: Sequence[str] | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 10,
    n_components: int | None = 10,
    modality: str | None = None,
    **train_kwargs: Any,
) -> pd.DataFrame:
    """Compare likelihoods with each other, with PCA and with an autoencoder.

    The height of a density depends on the units of the data. So every model is scored by the
    probability of the same integer counts. Densities are integrated from 0.5 below to 0.5 above
    each count.

    Parameters
    ----------
    models
        Trained models by name, with the same held-out cells. Or one model, trained or not. Copies
        of this model (siblings) are then trained: one with each of ``likelihoods``, and one as a
        deterministic autoencoder.
    likelihoods
        Keys of :data:`betavi.likelihoods.LIKELIHOODS` for siblings. If None, all likelihoods that
        give integer counts a probability.
    indices
        Positions of the cells to score. If None, the cells that the first model held out.
    n_samples
        Number of posterior samples per cell.
    n_components
        Number of PCA components. If None, PCA is left out.
    modality
        Modality whose likelihoods are compared. Necessary if there are several modalities. Siblings
        keep the likelihoods of the other modalities. Only cells with this modality are scored, and
        z is inferred from this modality alone.
    **train_kwargs
        Passed to ``train`` of siblings.

    Returns
    -------
    One row per model, and the row ``"observed"``. Columns are in nats per cell unless stated
    otherwise:

    ``elbo``, ``evidence``
        Lower bounds of the log-probability of the counts. ``evidence`` is the importance-weighted
        bound. Both are minus infinity for an autoencoder, which represents a cell by a point.
    ``rate``, ``distortion``
        The two terms of the ELBO: KL divergence from the prior, and negative log-likelihood. An
        autoencoder can be compared by the distortion only.
    ``nats_per_count``
        Negative ELBO per count.
    ``detection``
        Negative log-probability of the pattern of zeros.
    ``zero_fraction``
        Mean predicted share of zeros.
    ``zero_error``
        Mean absolute error of the share of zeros of each gene.
    ``variance_ratio``
        Predicted variance divided by the observed variance, median over genes.

    Raises
    ------
    ValueError
        If no cells were held out, a given model is not trained or was trained on cells to score,
        or the modality is unclear.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata)
    >>> options = {"max_epochs": 2, "enable_progress_bar": False}
    >>> betavi.metrics.compare_likelihoods(model, ["nb"], n_components=2, **options).index.tolist()
    ['nb', 'autoencoder (nb)', 'PCA, 2 components', 'observed']
    """
    if likelihoods is None:
        likelihoods = [word for word, kind in LIKELIHOODS.items() if kind.is_of_counts]
    if not isinstance(models, Mapping):
        name = _modality([models], modality)
        models = _trained_siblings(models, name, likelihoods, train_kwargs)
    elif train_kwargs:
        raise ValueError(
            f"Trained models are not trained again. Leave out {', '.join(train_kwargs)}."
        )
    name = _modality(models.values(), modality)
    untrained = [word for word, model in models.items() if not model.is_trained]
    if untrained:
        raise ValueError(f"Train these models before the comparison: {', '.join(untrained)}.")
    first = next(iter(models.values()))
    cells = _measured(first, name, first.validation_indices if indices is None else indices)
    if not len(cells):
        raise ValueError(
            "No cells were held out. Hold out cells, or pass cells to score: indices=..."
        )
    if indices is None:
        _check_held_out(models, cells)
    scores = {}
    for word, model in models.items():
        score = model.score_counts(indices=cells, n_samples=n_samples, modalities=name)
        scores[word] = model.adapter.by_modality(score)[name]
    if n_components is not None:
        seen = _measured(first, name, first.train_indices)
        linear = LinearModel(first.raw_counts(seen, modality=name), n_components)
        scores[f"PCA, {n_components} components"] = linear.score(
            first.raw_counts(cells, modality=name), n_samples
        )
    table = pd.DataFrame({word: score.row() for word, score in scores.items()}).T
    observed = next(iter(scores.values())).observed
    table.loc["observed", ["zero_fraction", "zero_error", "variance_ratio"]] = (
        observed.zeros.mean(), 0.0, 1.0
    )  # fmt: skip
    return table


def _modality(models: Iterable[CountModel], modality: str | None) -> str:
    """Return the only modality that the models have, or the chosen one."""
    named = {name: None for model in models for name in model.named_modalities(modality)}
    if len(named) > 1:
        raise ValueError(
            "The models have several modalities. Choose one with `modality`. The modalities are "
            f"{', '.join(map(repr, named))}."
        )
    return next(iter(named))


def _measured(model: CountModel, name: str, cells: Any) -> np.ndarray:
    """Return the positions of the given cells that have a modality."""
    has, chosen = model.adapter.has(model.adata, name), np.asarray(cells)
    positions = np.arange(len(has))[chosen if chosen.size else chosen.astype(np.int64)]
    return positions[has[positions]]


def _trained_siblings(
    model: CountModel, modality: str, likelihoods: Sequence[str], train_kwargs: dict[str, Any]
) -> dict[str, CountModel]:
    def with_likelihood(word: str, **changes: Any) -> CountModel:
        if modality == COUNTS:
            return model.sibling(gene_likelihood=word, **changes)
        return model.sibling(likelihoods={modality: word}, **changes)

    # with one β, all siblings have the same networks: an autoencoder has no range of β
    one = {} if model.module.beta_condition.is_fixed else {"beta": 1.0}
    siblings = {word: with_likelihood(word, **one) for word in likelihoods}
    autoencoder = f"autoencoder ({likelihoods[0]})"
    siblings[autoencoder] = with_likelihood(
        likelihoods[0], latent_distribution="deterministic", beta=1.0
    )
    split = [model.train_indices, model.validation_indices] if model.is_trained else None
    for name, sibling in siblings.items():
        # without a seed, scvi-tools splits the cells of each run differently
        options = dict(train_kwargs.get("datasplitter_kwargs") or {})
        if split is not None:
            options["external_indexing"] = split
        dropped = CONSTRAINTS if name == autoencoder else set()
        accepted = {word: value for word, value in train_kwargs.items() if word not in dropped}
        sibling.train(**accepted | {"datasplitter_kwargs": options})
        split = split or [sibling.train_indices, sibling.validation_indices]
    return siblings


def _check_held_out(models: Mapping[str, CountModel], cells: np.ndarray) -> None:
    for name, model in models.items():
        seen = np.intersect1d(cells, model.train_indices)
        if len(seen):
            raise ValueError(
                f"{len(seen)} of the {len(cells)} cells to score were training cells of the model "
                f"{name!r}. "
                "Compared models must hold out the same cells. Train all models with the same "
                "split: train(datasplitter_kwargs={'external_indexing': [train, held_out]})"
            )
