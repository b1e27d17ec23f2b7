"""Disentanglement of latent spaces: the match of single dimensions with labels or factors."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from betavi._tables import check_whole, lookup
from betavi.metrics._dimension_scores import SCORES
from betavi.metrics._spaces import linear_spaces, read_expression, read_numbers
from betavi.metrics._targets import Target, factor_target, judge, label_target

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Disentanglement(NamedTuple):
    """Result of :func:`disentanglement`.

    Parameters
    ----------
    table
        Metrics of each latent space. The index has the levels ``space`` (``"latent"``, ``"PCA"``,
        ``"ICA"``) and ``metric``. See :func:`disentanglement` for the columns.
    scores
        Score of each dimension for each label or factor, a share from 0 to 1. The index has the
        levels ``space`` and ``dimension``, and columns are labels or factors.

    Examples
    --------
    >>> from betavi.metrics import disentanglement
    >>> table, scores = disentanglement([[0.0], [0.1], [0.9], [1.0]], ["a", "a", "b", "b"])
    >>> float(table.loc[("latent", "MSAS"), "value"].round(3)), scores.shape
    (1.0, (1, 2))
    """

    table: pd.DataFrame
    scores: pd.DataFrame


def disentanglement(
    z: ArrayLike | pd.DataFrame,
    labels: Any = None,
    factors: Any = None,
    *,
    log_expression: Any = None,
    score: str = "information",
    n_bins: int = 10,
    n_permutations: int = 100,
    n_bootstrap: int = 100,
    seed: int = 0,
) -> Disentanglement:
    r"""Measure how well single latent dimensions match labels or simulated factors.

    In a disentangled space, each label or factor has a dimension of its own. Pass the logarithm of
    expression to compare the latent space with PCA and ICA.

    Parameters
    ----------
    z
        Latent space, ``(n_cells, n_dimensions)``.
    labels
        Category of each cell, ``(n_cells,)``, for example cell types. Cells with a missing label
        are dropped. Each label needs two cells.
    factors
        Continuous factors of each cell, ``(n_cells, n_factors)``, for example activities of
        simulated gene programs. Pass either ``labels`` or ``factors``.
    log_expression
        Log expression of the same cells, ``(n_cells, n_genes)``, dense or sparse, for example
        log(1 + counts per 10,000). If given, PCA with as many dimensions as ``z`` is added, and
        FastICA of these components (contrast ``"exp"``, first of five starts that converges).
    score
        Score of a dimension for a label, from 0 to 1. For ``factors``, only ``"information"``.

        - ``"information"``: mutual information of the binned dimension and membership in the
          label, divided by the entropy of the membership (SMI of DRVI);
        - ``"spearman"``: absolute Spearman correlation with the membership. Its maximum is below 1
          for rare labels;
        - ``"auc"``: \|2 AUC - 1\|, where AUC is the area under the ROC curve. It finds labels at
          an end of a dimension, but not in its middle.
    n_bins
        Number of bins of equal width between the smallest and the largest value.
    n_permutations
        Number of random permutations of labels or factors for the null model. 0 leaves it out.
    n_bootstrap
        Number of bootstrap samples of cells for the intervals. 0 leaves them out.
    seed
        Seed of permutations, bootstrap, PCA and ICA. All spaces have the same permutations and
        bootstrap samples.

    Returns
    -------
    A :class:`Disentanglement` with ``table`` and ``scores``. ``table`` has one row for each space
    and metric. All numbers are shares from 0 to 1, where 1 is best:

    - ``value``, the metric;
    - ``lower`` and ``upper``, ends of the 90 % interval. Cells are resampled, for labels within
      each label. The bias of bootstrap samples is subtracted;
    - ``null_mean`` and ``null_upper``, mean and 95 % quantile after permutation. A value below
      ``null_upper`` may be due to chance.

    Metrics of labels:

    - ``LMS``, latent matching score: mean score in the best one-to-one match of dimensions and
      labels. Labels without a dimension count as 0;
    - ``MSAS``, most similar averaging score: mean over labels of the best dimension's score;
    - ``MSGS``, most similar gap score: mean over labels of the gap between the best and the
      second-best dimension.

    Metrics of factors:

    - ``LMS`` and ``MSAS``, with the mutual information of the binned dimension and the binned
      factor, divided by the factor's entropy;
    - ``MIG``, mutual information gap: the mean gap of these scores;
    - ``SAP``, separated attribute predictability: the mean gap of squared correlations;
    - ``DCI disentanglement``: 1 if each dimension predicts one factor. NaN for one factor;
    - ``DCI completeness``: 1 if each factor is predicted by one dimension. NaN for one dimension;
    - ``DCI informativeness``: share of the factors' variance that all dimensions predict in
      held-out cells. DCI fits extremely randomised trees to at most 1,000 cells. Its null model
      and its intervals use at most 20 samples, about 20 s for 10 factors.

    A constant dimension has the score 0. ``table["value"].unstack()`` has one row per space.

    Raises
    ------
    TypeError
        If ``z`` or a factor does not hold numbers.
    ValueError
        If neither or both of ``labels`` and ``factors`` are given, lengths differ, numbers are not
        finite, there is one label, a label has one cell, a factor is constant, or
        ``log_expression`` holds raw counts or has too few genes.

    References
    ----------
    Moinfar & Theis (2024), Unsupervised deep disentangled representation of single-cell omics
    (DRVI; LMS, MSAS, MSGS). Chen et al. (2018), Isolating sources of disentanglement in variational
    autoencoders (MIG). Kumar et al. (2018), Variational inference of disentangled latent concepts
    from unlabeled observations (SAP). Eastwood & Williams (2018), A framework for the quantitative
    evaluation of disentangled representations (DCI).

    Examples
    --------
    A dimension for each of four labels, and the same space after a rotation:

    >>> import betavi
    >>> import numpy as np
    >>> from scipy.linalg import hadamard
    >>> labels = np.repeat([0, 1, 2, 3], 50)
    >>> z = np.eye(4)[labels] + 0.1 * np.random.default_rng(0).normal(size=(200, 4))
    >>> aligned = betavi.metrics.disentanglement(z, labels).table.loc["latent"]
    >>> rotated = betavi.metrics.disentanglement(z @ hadamard(4) / 2, labels).table.loc["latent"]
    >>> aligned.columns.tolist()
    ['value', 'lower', 'upper', 'null_mean', 'null_upper']
    >>> bool(aligned.loc["LMS", "lower"] > rotated.loc["LMS", "upper"])
    True
    """
    _check_numbers(n_bins, n_permutations, n_bootstrap)
    latent = read_numbers("z", z, "dimension")
    n_cells, n_dimensions = latent.shape
    target = _target(labels, factors, n_cells, score, n_bins, seed)
    spaces = {"latent": latent.to_numpy()}
    if log_expression is not None:
        expression = read_expression(log_expression, n_cells, n_dimensions)
        spaces |= linear_spaces(expression, n_dimensions, seed)
    tables, scores = {}, {}
    for name, values in spaces.items():
        tables[name], found = judge(values, target, n_permutations, n_bootstrap, seed)
        dimensions = latent.columns if name == "latent" else pd.RangeIndex(n_dimensions)
        scores[name] = pd.DataFrame(found, dimensions, target.names)
    return Disentanglement(
        pd.concat(tables, names=["space", "metric"]),
        pd.concat(scores, names=["space", "dimension"]),
    )


def _target(labels: Any, factors: Any, n_cells: int, score: str, n_bins: int, seed: int) -> Target:
    """Return the labels or factors to judge by."""
    chosen = lookup(SCORES, score, "score")
    if (labels is None) == (factors is None):
        raise ValueError(
            "Pass either `labels`, one category per cell, or `factors`, continuous values of each "
            "cell."
        )
    if labels is not None:
        return label_target(labels, n_cells, chosen, n_bins)
    if score != "information":
        raise ValueError(f"With `factors`, score must be 'information', not {score!r}.")
    return factor_target(factors, n_cells, n_bins, seed)


def _check_numbers(n_bins: int, n_permutations: int, n_bootstrap: int) -> None:
    check_whole("n_bins", n_bins)
    if n_bins == 1:
        raise ValueError("n_bins must be at least 2, because one bin holds all cells.")
    for name, number in (("n_permutations", n_permutations), ("n_bootstrap", n_bootstrap)):
        if isinstance(number, bool) or not isinstance(number, Integral) or number < 0:
            raise ValueError(f"{name} must be a whole number of at least 0, not {number!r}.")
