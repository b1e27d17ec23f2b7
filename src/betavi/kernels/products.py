"""Products of counts and dense matrices, which skip the zeros."""

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
def counts_times(start, stop, indptr, columns, values, weight, out):
    """Add to rows ``start`` to ``stop`` of ``out`` those of compressed counts times a dense matrix."""
    for i in range(start, stop):
        sums, k, end = out[i], indptr[i], indptr[i + 1]
        # four at a time, for which sums are read and written once
        while k + 4 <= end:
            a, b, c, d = values[k], values[k + 1], values[k + 2], values[k + 3]
            of_a, of_b = weight[columns[k]], weight[columns[k + 1]]
            of_c, of_d = weight[columns[k + 2]], weight[columns[k + 3]]
            for h in range(sums.size):
                sums[h] += (a * of_a[h] + b * of_b[h]) + (c * of_c[h] + d * of_d[h])
            k += 4
        while k < end:
            value, terms = values[k], weight[columns[k]]
            for h in range(sums.size):
                sums[h] += value * terms[h]
            k += 1
