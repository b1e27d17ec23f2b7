"""Comparison of generated cells with measured cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from betavi.metrics._cells import PER_CELL, Cells, read_cells, refuse_fractions
from betavi.metrics.curves import VAR_OFFSET, curve_distances, gene_moments
from betavi.metrics.samples import energy_distance, maximum_mean_discrepancy

if TYPE_CHECKING:
    from anndata import AnnData

N_COMPONENTS, N_TREES, N_FOLDS = 50, 200, 3
MOST_CELLS = 2000  # per set, except for fold changes
MOST_GENES = 500  # genes with most counts, for the correlations
PSEUDOCOUNT = 0.1  # added to means per ten thousand
FEWEST_CELLS = 36  # real cells, 12 in each third

CEILING, FLOOR = "other real cells", "genes shuffled"


def realism(
    real: AnnData,
    generated: AnnData | Mapping[str, AnnData],
    groupby: str | None = None,
    layer: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare generated cells with real cells.

    Real cells are split into three parts of equal size. The first part is compared with each set of
    generated cells. For reference, the first part is also compared with the second part, as perfect
    generated cells would be, and with the second part after shuffling the counts of each gene over
    cells. Principal components are fitted to the third part, because components distinguish the
    cells that they were fitted to. All compared sets have the same size, at most 2,000 cells.

    Parameters
    ----------
    real
        Counts of measured cells. Preferably use cells that were not in training, because generated
        cells resemble training cells.
    generated
        Counts of generated cells with the same genes, or several sets by name.
    groupby
        Column of ``obs`` in all objects. If given, log fold changes of each group against the
        others are compared.
    layer
        Layer of the counts. If None, ``X``, or the layer to which ``denoise(layer_added=None)``
        moved the counts.
    seed
        Seed of the split, the shuffling and the trees.

    Returns
    -------
    One row per set, with

    - ``auc``, the area under the ROC curve of a random forest that separates the set from real
      cells. The forest reads 50 principal components of log counts, the total, and the number of
      detected genes. An area of 0.5 means that the forest cannot separate them;
    - ``mmd2`` and ``energy``, squared maximum mean discrepancy and energy distance in components;
    - ``correlation``, root mean square difference of the correlations between the 500 genes with
      most counts;
    - ``variance`` and ``zeros``, median absolute differences of genes' log10 variances and shares
      of zeros; ``variance_curve`` and ``zeros_curve``, mean absolute differences of
      :func:`mean_curves`;
    - with ``groupby``: ``lfc_slope`` and ``lfc_r``, slope and Pearson correlation of log2 fold
      changes against the fold changes in the first part, means over groups.

    Raises
    ------
    ValueError
        If genes differ, there are fewer than 36 real or 12 generated cells, values of the real
        cells are not counts, or values are negative or not finite.
    KeyError
        If the column or layer is missing.

    References
    ----------
    Lopez-Paz & Oquab (2017), Revisiting classifier two-sample tests. Gretton et al. (2012), A
    kernel two-sample test.

    Examples
    --------
    >>> import betavi
    >>> real = betavi.datasets.simulate_counts(n_cells=400, n_genes=30, seed=0)
    >>> table = betavi.metrics.realism(real, real[:150])
    >>> bool(table.loc["genes shuffled", "correlation"] > table.iloc[0]["correlation"])
    True
    """
    several = generated if isinstance(generated, Mapping) else {"generated": generated}
    rng = np.random.default_rng(seed)
    whole = read_cells("the real cells", real, layer, groupby)
    refuse_fractions("the real cells", whole)
    if len(whole) < FEWEST_CELLS:
        raise ValueError(f"Only {len(whole)} real cells were passed. Pass at least {FEWEST_CELLS}.")
    order = rng.permutation(len(whole))
    first, second, aside = (whole.of(part) for part in np.array_split(order, 3))
    others = {CEILING: second}
    for name, adata in several.items():
        if list(adata.var_names) != list(real.var_names):
            raise ValueError(
                f"The genes of the generated cells {name!r} must be the genes of the real cells, "
                f"in the same order. Select the genes: {name}[:, real.var_names]"
            )
        others[name] = read_cells(repr(name), adata, layer, groupby)
        if len(others[name]) < FEWEST_CELLS // 3:
            n_cells, fewest = len(others[name]), FEWEST_CELLS // 3
            raise ValueError(
                f"The set of generated cells {name!r} has only {n_cells} cells. Pass at least "
                f"{fewest} cells."
            )
    others[FLOOR] = Cells(_shuffled(second.counts, rng), second.groups)
    n_cells = min(MOST_CELLS, *(len(cells) for cells in (first, *others.values())))
    distances = _Distances(first, aside, n_cells, rng)
    rows = {name: distances.of(cells) for name, cells in others.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def _shuffled(counts: sparse.csr_matrix, rng: np.random.Generator) -> sparse.csr_matrix:
    columns = counts.tocsc(copy=True)
    for gene in range(columns.shape[1]):
        some = slice(columns.indptr[gene], columns.indptr[gene + 1])
        n_cells = some.stop - some.start
        columns.indices[some] = np.sort(rng.choice(columns.shape[0], n_cells, replace=False))
        columns.data[some] = rng.permutation(columns.data[some])
    return columns.tocsr()


class _Distances:
    """Distances of sets of cells from real cells, with equal numbers of cells."""

    def __init__(self, first: Cells, aside: Cells, n_cells: int, rng: np.random.Generator) -> None:
        self.whole, self.real, self.rng = first, first.some(n_cells, rng), rng
        self.logs = self.real.logs
        # components would distinguish the cells that they were fitted to
        others = aside.some(MOST_CELLS, rng).logs
        self.pca = PCA(min(N_COMPONENTS, *others.shape), random_state=0).fit(others)
        self.positions = self.pca.transform(self.logs)
        self.bandwidth = float(np.median(pdist(self.positions))) or 1.0

    def of(self, whole: Cells) -> dict[str, float]:
        """Return every distance of a set from the real cells."""
        other = whole.some(self.real.counts.shape[0], self.rng)
        logs = other.logs
        positions = self.pca.transform(logs)
        found = {
            "auc": two_sample_auc(
                _features(self.real, self.positions), _features(other, positions)
            ),
            "mmd2": maximum_mean_discrepancy(self.positions, positions, self.bandwidth),
            "energy": energy_distance(self.positions, positions),
            **_gene_diffs(self.real, other, (self.logs, logs)),
        }
        if self.whole.groups is not None and whole.groups is not None:
            # without the limit of 2,000 cells, because a group may be rare
            as_many = whole.some(len(self.whole), self.rng)
            slope, correlation = _fold_change_recovery(self.whole, as_many)
            found |= {"lfc_slope": slope, "lfc_r": correlation}
        return found


def _features(cells: Cells, components: np.ndarray) -> np.ndarray:
    """Return each cell's principal components, log total and number of genes with counts."""
    totals = np.asarray(cells.counts.sum(axis=1)).ravel()
    n_genes = np.diff(cells.counts.indptr)
    return np.column_stack([components, np.log1p(totals), n_genes])


def two_sample_auc(one: np.ndarray, two: np.ndarray, seed: int = 0) -> float:
    """Return the area under the ROC curve of a random forest that separates two samples.

    Parameters
    ----------
    one, two
        The two samples, ``(n, n_features)`` and ``(m, n_features)``. Points are classified by
        cross-validation, after Lopez-Paz & Oquab (2017), Revisiting classifier two-sample tests.
    seed
        Seed of the trees.

    Returns
    -------
    Area: 0.5 if the samples cannot be separated, 1 if every point can.

    Examples
    --------
    >>> two_sample_auc(np.zeros((30, 1)), np.ones((30, 1)))
    1.0
    """
    labels = np.repeat([0, 1], [len(one), len(two)])
    forest = RandomForestClassifier(N_TREES, min_samples_leaf=3, random_state=seed, n_jobs=-1)
    order = np.random.default_rng(seed).permutation(len(labels))
    features = np.vstack([one, two])[order]
    scores = cross_val_predict(forest, features, labels[order], cv=N_FOLDS, method="predict_proba")
    return float(roc_auc_score(labels[order], scores[:, 1]))


def _gene_diffs(one: Cells, two: Cells, logs: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Return differences of genes' moments, and of the correlations between genes."""
    most = np.argsort(-np.asarray(one.counts.sum(axis=0)).ravel())[:MOST_GENES]
    varies = most[(logs[0][:, most].std(axis=0) > 0) & (logs[1][:, most].std(axis=0) > 0)]
    first, second = (np.corrcoef(values[:, varies], rowvar=False) for values in logs)
    off = ~np.eye(len(varies), dtype=bool)
    correlation = np.sqrt(np.square((first - second)[off]).mean()) if len(varies) > 1 else np.nan
    genes = [gene_moments(cells.counts) for cells in (one, two)]
    variances = [np.log10(part["variance"] + VAR_OFFSET) for part in genes]
    return {
        "correlation": float(correlation),
        "variance": float(np.median(np.abs(variances[0] - variances[1]))),
        "zeros": float((genes[0]["zeros"] - genes[1]["zeros"]).abs().median()),
        **curve_distances(*genes),
    }


def log_fold_changes(counts: Any, is_in: np.ndarray) -> np.ndarray:
    """Return log2 fold changes of the chosen cells against the other cells.

    Parameters
    ----------
    counts
        Counts, ``(n_cells, n_genes)``.
    is_in
        Mask of the chosen cells, ``(n_cells,)``.

    Returns
    -------
    Log2 ratios of counts per ten thousand, with a pseudocount of 0.1, ``(n_genes,)``.

    Examples
    --------
    >>> log_fold_changes(np.array([[1, 3], [3, 1]]), np.array([True, False])).round(1)
    array([-1.6,  1.6])
    """
    matrix = sparse.csr_matrix(counts)
    sums = [np.asarray(matrix[part].sum(axis=0)).ravel() for part in (is_in, ~is_in)]
    logs = [np.log2(PER_CELL * part / max(part.sum(), 1) + PSEUDOCOUNT) for part in sums]
    return logs[0] - logs[1]


def _fold_change_recovery(first: Cells, other: Cells) -> tuple[float, float]:
    """Return slope and correlation of the fold changes of groups, as means over groups."""
    assert first.groups is not None
    assert other.groups is not None
    names = sorted(set(first.groups) & set(other.groups))
    found = []
    for name in names:
        real, mine = (log_fold_changes(c.counts, c.groups == name) for c in (first, other))
        if np.ptp(real) > 0 and np.ptp(mine) > 0:
            found.append((np.polyfit(real, mine, 1)[0], np.corrcoef(real, mine)[0, 1]))
    if len(names) < 2 or not found:
        return float("nan"), float("nan")
    slope, correlation = np.mean(found, axis=0)
    return float(slope), float(correlation)
