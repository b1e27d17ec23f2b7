"""Effects of latent dimensions on genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

SMALLEST_SCALE = 1e-8
"""Smallest normalised expression in a logarithm."""


@dataclass(frozen=True)
class ExplainedDimensions:
    """Result of ``explain_dimensions()``.

    Parameters
    ----------
    dimensions
        One row for each latent dimension.
    genes
        One row for each listed gene of a dimension, sign and modality.
    fold_changes
        Log2 fold changes of all listed genes along all explained dimensions. The index has the
        levels ``modality`` and ``gene``, the columns have the levels ``dimension`` and ``sign``.
    n_cells
        Number of cells on which the dimensions were tested.
    is_held_out
        True if training did not use these cells. If False, the model may have memorised their
        noise, so that noise dimensions seem used.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=2)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> explained = model.explain_dimensions(show_progress=False)
    >>> len(explained.dimensions), explained.is_held_out
    (2, False)
    """

    dimensions: pd.DataFrame
    genes: pd.DataFrame
    fold_changes: pd.DataFrame
    n_cells: int
    is_held_out: bool


class DecodedCells(NamedTuple):
    """Decoded genes of cells.

    Parameters
    ----------
    scale
        Normalised expression, ``(n_cells, n_genes)``.
    mean
        Expected counts at each cell's own library size, ``(n_cells, n_genes)``.

    Examples
    --------
    >>> DecodedCells(scale=np.ones((2, 3)), mean=np.ones((2, 3))).mean.shape
    (2, 3)
    """

    scale: np.ndarray
    mean: np.ndarray


class GeneEffects(NamedTuple):
    """Mean effects of a step along a dimension on genes, see :meth:`EffectSums.effects`.

    Parameters
    ----------
    log2_fold_change
        Log2 fold change of normalised expression, ``(n_genes,)``.
    sd_between_cells
        Standard deviation of the fold change between cells, ``(n_genes,)``.
    standard_error
        Sampling error of the mean fold change over the cells, ``(n_genes,)``.
    log2_count_change
        Change of log2(expected count + 1), ``(n_genes,)``.

    Examples
    --------
    >>> GeneEffects(*np.ones((4, 3))).log2_fold_change.tolist()
    [1.0, 1.0, 1.0]
    """

    log2_fold_change: np.ndarray
    sd_between_cells: np.ndarray
    standard_error: np.ndarray
    log2_count_change: np.ndarray


class EffectSums:
    """Sums over cells of the effect of a step on each gene, added one minibatch at a time.

    Parameters
    ----------
    n_genes
        Number of genes.
    is_share
        True if the normalised expression of a cell sums to 1. A step then shifts the log expression
        of all genes of a cell together, to restore the sum. This shift differs between cells even
        if the step adds the same to all cells, so ``sd_between_cells`` leaves it out.

    Examples
    --------
    >>> one = np.ones((2, 3))
    >>> sums = EffectSums(3, is_share=False)
    >>> sums.add(DecodedCells(one, one), DecodedCells(one * 2, one * 2))
    >>> [values.tolist() for values in sums.effects()[:2]]
    [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """

    def __init__(self, n_genes: int, is_share: bool) -> None:
        self.is_share, self.n_cells = is_share, 0
        self._sums = {name: np.zeros((2, n_genes)) for name in ("change", "own")}
        self._counts = np.zeros(n_genes)

    def add(self, start: DecodedCells, end: DecodedCells) -> None:
        """Add cells that are decoded at the start and at the end of the step."""
        first, last = (np.log2(np.maximum(x.scale, SMALLEST_SCALE)) for x in (start, end))
        change = last - first
        own = change - change.mean(axis=1, keepdims=True) if self.is_share else change
        for name, values in (("change", change), ("own", own)):
            self._sums[name] += values.sum(axis=0), np.square(values).sum(axis=0)
        # a lognormal mean can be slightly below 0
        before, after = (np.log2(1 + np.maximum(x.mean, 0)) for x in (start, end))
        self._counts += (after - before).sum(axis=0)
        self.n_cells += len(change)

    def effects(self) -> GeneEffects:
        """Return the mean effect on each gene over the cells.

        ``log2_fold_change``: mean log2 fold change of the normalised expression.
        ``sd_between_cells``: its standard deviation between cells. ``standard_error``: sampling
        error of the mean over cells. ``log2_count_change``: mean change of log2(expected count + 1)
        at each cell's own library size, which is small for genes with few counts.
        """
        means = self._sums["change"][0] / self.n_cells
        return GeneEffects(
            means,
            self._deviation("own"),
            self._deviation("change") / np.sqrt(self.n_cells),
            self._counts / self.n_cells,
        )

    def _deviation(self, name: str) -> np.ndarray:
        total, squares = self._sums[name]
        n = self.n_cells
        variance = (squares - total**2 / n) / max(n - 1, 1)
        return np.sqrt(np.maximum(variance, 0))


def gene_tables(
    effects: Mapping[tuple[int, str, str], GeneEffects],
    names: Mapping[str, pd.Index],
    n_genes: int | None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """List the genes that rise most in each step, and their fold changes in all steps.

    Parameters
    ----------
    effects
        Effects by dimension, sign (``"+"`` or ``"-"``) and modality.
    names
        Genes of each modality.
    n_genes
        Largest number of genes for each key of ``effects``; falling genes are left out. None lists
        all genes, the rising ones first.

    Returns
    -------
    A table with the columns ``dimension``, ``sign``, ``modality``, ``gene``, the fields of
    :class:`GeneEffects`, and ``rank`` by ``log2_count_change``. And a table of log2 fold changes,
    see :class:`ExplainedDimensions`.

    Examples
    --------
    >>> both = GeneEffects(*np.array([[1.0, -2.0], [0.1, 0.1], [0.01, 0.01], [0.3, -0.9]]))
    >>> table, changes = gene_tables({(0, "+", "X"): both}, {"X": pd.Index(["a", "b"])}, 1)
    >>> table["gene"].tolist(), changes[(0, "+")].tolist()
    (['a'], [1.0])
    """
    rows: list[pd.DataFrame] = []
    listed: dict[str, list[int]] = {name: [] for name in names}
    for (dimension, sign, modality), part in effects.items():
        order = np.argsort(-part.log2_count_change, kind="stable")
        if n_genes is not None:
            order = order[part.log2_count_change[order] > 0][:n_genes]
        listed[modality] += order.tolist()
        row = {"dimension": dimension, "sign": sign, "modality": modality}
        row |= {"gene": names[modality][order]}
        row |= {name: values[order] for name, values in part._asdict().items()}
        rows.append(pd.DataFrame(row | {"rank": np.arange(1, len(order) + 1)}))
    columns = ["dimension", "sign", "modality", "gene", *GeneEffects._fields, "rank"]
    genes = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)
    return genes, _wide(effects, names, listed)


def _wide(
    effects: Mapping[tuple[int, str, str], GeneEffects],
    names: Mapping[str, pd.Index],
    listed: Mapping[str, list[int]],
) -> pd.DataFrame:
    """Return the log2 fold changes of all listed genes in all steps."""
    steps = list(dict.fromkeys(key[:2] for key in effects))
    parts = []
    for modality, positions in listed.items():
        chosen = list(dict.fromkeys(positions))
        index = pd.MultiIndex.from_product(
            [[modality], names[modality][chosen]], names=["modality", "gene"]
        )
        values = [effects[(*step, modality)].log2_fold_change[chosen] for step in steps]
        columns = pd.MultiIndex.from_tuples(steps, names=["dimension", "sign"]) if steps else None
        parts.append(pd.DataFrame(np.array(values).T if steps else None, index, columns))
    return pd.concat(parts)
