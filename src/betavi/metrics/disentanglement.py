"""Disentanglement of latent spaces: the match of single dimensions with labels or factors."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from betavi._tables import check_whole, lookup
from betavi.metrics._factors import Factors
from betavi.metrics._judge import judge
from betavi.metrics._labels import SCORES, Labels
from betavi.metrics._spaces import (
    check_rows,
    linear_spaces,
    read_expression,
    read_numbers,
    warn_outlying,
)

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
    >>> table, scores = disentanglement([[0.0], [0.1], [0.9], [1.0]] * 3, list("aabb") * 3)
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
        Latent space, ``(n_cells, n_dimensions)``, dense or sparse. A DataFrame names dimensions
        and cells. Rows of other DataFrames and Series must then have the same names in the same
        order.
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
        Number of bins for informations, at most the number of cells. As in DRVI, bins have equal
        width between the smallest and the largest value, so one outlying cell lowers the scores.
        Clip such cells, for example ``np.clip(z, *np.quantile(z, [0.01, 0.99], axis=0))`` for an
        array. A warning names a dimension with all but 0.5 % of the cells in one bin.
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
    - ``lower`` and ``upper``, ends of the 90 % interval of the value expected for as many cells
      of this trained model (see Notes);
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

    Notes
    -----
    Intervals resample cells, for labels within each label. The bias of bootstrap samples is
    subtracted. In simulations of 500 cells, 87 % of the intervals contain the expected value. Two
    differences are not part of them:

    - Numbers of cells. Informations of few cells are biased upward, so LMS and MSAS of many more
      cells are often below the interval. Compare spaces with equal numbers of cells.
    - Trainings. Another training of the same model can have a value outside the interval. Train
      with several seeds to compare models.

    Raises
    ------
    TypeError
        If ``z`` or a factor does not hold numbers.
    ValueError
        If neither or both of ``labels`` and ``factors`` are given, lengths or names of cells
        differ, numbers are not finite, there is one label, a label has one cell, a factor is
        constant, there are more bins than cells, or ``log_expression`` holds raw counts or has too
        few independent genes.

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
    n_dimensions = latent.shape[1]
    rows = {"labels": labels, "factors": factors, "log_expression": log_expression}
    for name, given in rows.items():
        if given is not None:
            check_rows(name, given, z)
    target = _target(labels, factors, score, n_bins, seed)
    if score == "information":
        _check_bins(n_bins, len(target.cells))
        warn_outlying(latent.iloc[target.cells], n_bins)
    spaces = {"latent": latent.to_numpy()}
    if log_expression is not None:
        expression = read_expression(log_expression, n_dimensions)
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


def _target(labels: Any, factors: Any, score: str, n_bins: int, seed: int) -> Labels | Factors:
    """Return the labels or factors to judge by."""
    chosen = lookup(SCORES, score, "score")
    if (labels is None) == (factors is None):
        raise ValueError(
            "Pass either `labels`, one category per cell, or `factors`, continuous values of each "
            "cell."
        )
    if labels is not None:
        return Labels.read(labels, chosen, n_bins)
    if score != "information":
        raise ValueError(f"With `factors`, score must be 'information', not {score!r}.")
    return Factors.read(factors, n_bins, seed)


def _check_numbers(n_bins: int, n_permutations: int, n_bootstrap: int) -> None:
    check_whole("n_bins", n_bins)
    if n_bins == 1:
        raise ValueError("n_bins must be at least 2, because one bin holds all cells.")
    for name, number in (("n_permutations", n_permutations), ("n_bootstrap", n_bootstrap)):
        if isinstance(number, bool) or not isinstance(number, Integral) or number < 0:
            raise ValueError(f"{name} must be a whole number of at least 0, not {number!r}.")


def _check_bins(n_bins: int, n_cells: int) -> None:
    if n_bins > n_cells:
        raise ValueError(
            f"n_bins must be at most the number of cells, {n_cells}, not {n_bins}. Pass fewer bins."
        )
