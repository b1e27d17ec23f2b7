"""Products of counts and dense matrices, which skip the zeros.

Weights do not fit into a processor's cache, so that they are read gene after gene, as they lie.
"""

from __future__ import annotations

import numpy as np

from betavi.kernels.special import loop


@loop
def rows_of(starts, lengths, columns, values):
    """Return compressed rows, in single precision, of which is known where they start and how long they are."""
    indptr = np.zeros(starts.size + 1, np.int32)
    for i in range(starts.size):
        indptr[i + 1] = indptr[i] + lengths[i]
    some_columns, some_values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    for i in range(starts.size):
        for k in range(lengths[i]):
            some_columns[indptr[i] + k] = columns[starts[i] + k]
            some_values[indptr[i] + k] = values[starts[i] + k]
    return indptr, some_columns, some_values


@loop
def by_gene(indptr, columns, values, n_genes):
    """Return where each gene's counts start, their cells and values: compressed columns."""
    starts = np.zeros(n_genes + 1, np.int64)
    for j in columns:
        starts[j + 1] += 1
    for j in range(n_genes):
        starts[j + 1] += starts[j]
    places, cells, sorted_values = starts[:-1].copy(), np.empty_like(columns), np.empty_like(values)
    for i in range(indptr.size - 1):
        for k in range(indptr[i], indptr[i + 1]):
            place = places[columns[k]]
            cells[place], sorted_values[place] = i, values[k]
            places[columns[k]] += 1
    return starts, cells, sorted_values


@loop
def counts_times(start, stop, starts, cells, values, weight, out):
    """Add to columns ``start`` to ``stop`` of ``out`` the product of counts and a dense matrix."""
    for j in range(starts.size - 1):
        terms = weight[j, start:stop]
        for k in range(starts[j], starts[j + 1]):
            value, sums = values[k], out[cells[k], start:stop]
            for h in range(terms.size):
                sums[h] += value * terms[h]


@loop
def transposed_counts_times(start, stop, starts, cells, values, grad, out):
    """Fill rows ``start`` to ``stop`` of ``out`` with the product of transposed counts and ``grad``."""
    for j in range(start, stop):
        sums = out[j]
        sums[:] = 0
        for k in range(starts[j], starts[j + 1]):
            value, terms = values[k], grad[cells[k]]
            for h in range(sums.size):
                sums[h] += value * terms[h]
