"""Likelihoods compared on the same footing: probabilities of the same integer counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from betavi.likelihoods import LIKELIHOODS
from betavi.metrics.pca import LinearModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.diagnostics import CountScore

CONSTRAINTS = {"free_bits", "target_rate", "capacity"}


class CountModel(Protocol):
    """What is asked of a model: :class:`betavi.BetaVI` is one."""

    is_trained: bool
    train_indices: np.ndarray
    validation_indices: np.ndarray
    module: Any

    def score_counts(self, *, indices: Any, n_samples: int) -> CountScore:
        """Score by the probability given to integer counts."""

    def raw_counts(self, indices: Any) -> Any:
        """Return the counts of some cells, ``(n_cells, n_genes)``."""

    def sibling(self, **changes: Any) -> CountModel:
        """Return an untrained model of the same object and arguments, but for some."""

    def train(self, **kwargs: Any) -> None:
        """Train."""


def compare_likelihoods(
    models: CountModel | Mapping[str, CountModel],
    likelihoods: Sequence[str] | None = None,
    indices: Sequence[int] | None = None,
    n_samples: int = 10,
    n_components: int | None = 10,
    **train_kwargs: Any,
) -> pd.DataFrame:
    """Set likelihoods side by side, with PCA and an autoencoder for reference.

    A density is no probability, and the height of one depends on the units of its argument. Here
    every model is asked for the probability of the same integer counts, those of a density being
    integrated over half a count on both sides.

    Parameters
    ----------
    models
        Trained models by name, which held out the same cells; or one model, trained or not, whose
        siblings are trained with each of the ``likelihoods`` and as a deterministic autoencoder.
    likelihoods
        Keys of :data:`betavi.likelihoods.LIKELIHOODS`, for siblings; all that give integer counts
        a probability if None.
    indices
        Cells to score; those that the first model held out if None.
    n_samples
        Draws from the posterior of each cell.
    n_components
        Of the PCA of log counts; no PCA if None.
    **train_kwargs
        Passed to ``train`` of siblings.

    Returns
    -------
    A row per model and ``"observed"``, the columns in nats per cell unless said otherwise:

    ``elbo``, ``evidence``
        Lower bounds of the log-probability of the counts, the latter importance-weighted; infinitely
        low for an autoencoder, which codes a cell by a point.
    ``rate``, ``distortion``
        The two terms of the ELBO. The distortion is the only figure that an autoencoder shares.
    ``nats_per_count``
        The negative ELBO over the mean number of counts of a cell.
    ``detection``
        Negative log-probability of which counts are zero.
    ``zero_fraction``, ``zero_error``
        Mean predicted share of zeros, and the mean absolute error of each gene's.
    ``variance_ratio``
        Median over genes of the predicted variance over the observed one.

    Raises
    ------
    ValueError
        If no cells were held out, the first model's were not held out by all, or one of several is
        not trained.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata)
    >>> table = betavi.metrics.compare_likelihoods(
    ...     model, ["nb", "lognormal"], n_components=2, max_epochs=2, enable_progress_bar=False
    ... )
    >>> table.index.tolist()
    ['nb', 'lognormal', 'autoencoder (nb)', 'PCA, 2 components', 'observed']
    """
    if likelihoods is None:
        likelihoods = [name for name, kind in LIKELIHOODS.items() if kind.is_of_counts]
    if not isinstance(models, Mapping):
        models = _trained_siblings(models, likelihoods, train_kwargs)
    elif train_kwargs:
        raise ValueError(f"Trained models are not trained again: {', '.join(train_kwargs)}.")
    untrained = [name for name, model in models.items() if not model.is_trained]
    if untrained:
        raise ValueError(f"Models that are not trained cannot be compared: {', '.join(untrained)}.")
    first = next(iter(models.values()))
    cells = first.validation_indices if indices is None else np.asarray(indices)
    if not len(cells):
        raise ValueError("No cells were held out. Train with some, or name cells: indices=...")
    if indices is None:
        _check_held_out(models, cells)
    scores = {
        name: model.score_counts(indices=cells, n_samples=n_samples)
        for name, model in models.items()
    }
    if n_components is not None:
        linear = LinearModel(first.raw_counts(first.train_indices), n_components)
        name = f"PCA, {n_components} components"
        scores[name] = linear.score(first.raw_counts(cells), n_samples)
    table = pd.DataFrame({name: score.row() for name, score in scores.items()}).T
    observed = next(iter(scores.values())).observed
    table.loc["observed", ["zero_fraction", "zero_error", "variance_ratio"]] = (
        observed.zeros.mean(), 0.0, 1.0
    )  # fmt: skip
    return table


def _trained_siblings(
    model: CountModel, likelihoods: Sequence[str], train_kwargs: dict[str, Any]
) -> dict[str, CountModel]:
    # of many β one is compared, as an autoencoder has none: all have the same networks then
    one = {} if model.module.dial.is_fixed else {"beta": 1.0}
    siblings = {name: model.sibling(gene_likelihood=name, **one) for name in likelihoods}
    autoencoder = f"autoencoder ({likelihoods[0]})"
    siblings[autoencoder] = model.sibling(
        gene_likelihood=likelihoods[0], latent_distribution="deterministic", beta=1.0
    )
    split = [model.train_indices, model.validation_indices] if model.is_trained else None
    for name, sibling in siblings.items():
        # without a seed scvi-tools splits the cells of each run anew
        options = dict(train_kwargs.get("datasplitter_kwargs") or {})
        if split is not None:
            options["external_indexing"] = split
        # an autoencoder has no rate that could be constrained
        unsaid = CONSTRAINTS if name == autoencoder else set()
        asked = {word: value for word, value in train_kwargs.items() if word not in unsaid}
        sibling.train(**asked | {"datasplitter_kwargs": options})
        split = split or [sibling.train_indices, sibling.validation_indices]
    return siblings


def _check_held_out(models: Mapping[str, CountModel], cells: np.ndarray) -> None:
    for name, model in models.items():
        seen = np.intersect1d(cells, model.train_indices)
        if len(seen):
            raise ValueError(
                f"{len(seen)} of the {len(cells)} cells to score were training cells of {name!r}: "
                "models that are compared have to hold the same cells out. Give the runs the same "
                "datasplitter_kwargs={'external_indexing': [train, held_out]}."
            )
