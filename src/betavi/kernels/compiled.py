"""Loops over the counts of a minibatch, compiled by Numba: values and gradients in one pass.

One cell at a time, so that what is computed of it stays in the processor's cache. Zeros go through
vectorised single precision; the few counts above zero are summed in double, as in
:mod:`betavi.kernels.plain`, whose values these are. Numba has no vectorised exponential or logarithm
without Intel's runtime, hence the polynomials (those of Cephes, accurate to 2e-7).

Every function of a minibatch takes the first row and the one after the last that a thread is to do.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from betavi.kernels.plain import EPS

D, F, I = np.float64, np.float32, np.int32
CAREFUL = {"contract", "nsz", "arcp"}
_loop = njit(fastmath=CAREFUL, error_model="numpy", nogil=True, cache=True)
_reduction = njit(
    fastmath=CAREFUL | {"reassoc", "nnan"}, error_model="numpy", nogil=True, cache=True
)

BLOCK = 256
"""Entries that are summed in single precision before they are added in double."""

LANES = 32

SMALL = 24
"""Up to this count a ratio of gamma functions is a product."""

SHIFT = 12
"""By how much a small argument is raised before Stirling's series is used of it."""

MOST_ODDS = F(60.0)
"""Logit beyond which single precision knows no difference."""

COUNT, MEAN, THETA, PRODUCT, VALUE, BY_MEAN, BY_THETA, LOGIT = range(8)
N_KEPT = 8
"""Rows of what is kept of the counts above zero of a cell."""

LOG_FACTORIALS = np.array([math.lgamma(count + 1.0) for count in range(1024)])

# -- special functions ------------------------------------------------------------------------


@_loop
def _exp_parts(x):
    """Return s and q with exp(x) = s * (1 + q), s a power of two and q exact near zero."""
    x = min(max(x, F(-87.0)), F(88.0))
    n = np.floor(x * F(1.44269504) + F(0.5))
    r = x - n * F(0.693359375) - n * F(-2.12194440e-4)
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    return I((I(n) + I(127)) << I(23)).view(F), p * r * r + r


@_loop
def _exp(x):
    s, q = _exp_parts(x)
    return s * q + s


@_loop
def _log(w, change):
    """Return log w of w = 1 + change, where the change is known better than w."""
    bits = F(w).view(I)
    e = I(I(bits - I(0x3F3504F3)) >> I(23))
    m = I(bits - I(e << I(23))).view(F) - F(1.0)
    if e == 0:
        m = change
    z = m * m
    p = F(7.0376836292e-2)
    p = p * m + F(-1.1514610310e-1)
    p = p * m + F(1.1676998740e-1)
    p = p * m + F(-1.2420140846e-1)
    p = p * m + F(1.4249322787e-1)
    p = p * m + F(-1.6668057665e-1)
    p = p * m + F(2.0000714765e-1)
    p = p * m + F(-2.4999993993e-1)
    p = p * m + F(3.3333331174e-1)
    e = F(e)
    return m + (p * m * z + e * F(-2.12194440e-4) - F(0.5) * z) + e * F(0.693359375)


@_loop
def _stirling(z):
    """Return log Gamma(z) for z of at least SHIFT."""
    i = 1.0 / z
    w = i * i
    return (z - 0.5) * math.log(z) - z + i * (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w / 1680)))


@_loop
def _digamma(z):
    below = 0.0
    while z < SHIFT:
        below += 1.0 / z
        z += 1.0
    i = 1.0 / z
    w = i * i
    series = w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w * (1 / 240 - w / 132))))
    return math.log(z) - 0.5 * i - series - below


@_loop
def _rising(theta, count):
    """Return log Gamma(theta + count) - log Gamma(theta), and its derivative by theta."""
    n = int(count)
    if n != count:
        return math.lgamma(theta + count) - math.lgamma(theta), _digamma(theta + count) - _digamma(theta)
    product, value, slope = 1.0, 0.0, 0.0
    for k in range(n if n <= SMALL else SHIFT):
        factor = theta + k
        product *= factor
        slope += 1.0 / factor
        if k == SHIFT - 1:
            value = math.log(product)
            product = 1.0
    value += math.log(product)
    if n > SMALL:
        low, high = theta + SHIFT, theta + count
        value += _stirling(high) - _stirling(low)
        slope += _digamma(high) - _digamma(low)
    return value, slope


@_loop
def _log_factorial(count):
    n = int(count)
    is_listed = n == count and n < LOG_FACTORIALS.size
    return LOG_FACTORIALS[n] if is_listed else math.lgamma(count + 1.0)


# -- what all likelihoods share ---------------------------------------------------------------


@_reduction
def _sum(values):
    total = 0.0
    for start in range(0, values.size, BLOCK):
        part = F(0)
        for j in range(start, min(start + BLOCK, values.size)):
            part += values[j]
        total += part
    return total


@_reduction
def _largest(values):
    # one for each lane of a vector, as compilers do not split a maximum by themselves
    lanes = np.full(LANES, values[0])
    whole = values.size - values.size % LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] = max(lanes[lane], values[start + lane])
    for j in range(whole, values.size):
        lanes[0] = max(lanes[0], values[j])
    return lanes.max()


@_loop
def _exponentials(unscaled, bias, out):
    """Fill ``out`` with exp(unscaled + bias), up to a factor, and return their sum."""
    for j in range(out.size):
        out[j] = unscaled[j] + bias[j]
    largest = _largest(out)
    for j in range(out.size):
        out[j] = _exp(out[j] - largest)
    return _sum(out)


@_loop
def _through_softmax(mean, size, slope):
    """Turn derivatives by log means into those by what the softmax is of; return their sum."""
    total = _sum(slope)
    share = F(total / size)
    for j in range(mean.size):
        slope[j] -= mean[j] * share
    return total


@_loop
def _counts_of(i, indptr, columns, values):
    """Return columns and values of a row; of several draws of the same cells, of its cell."""
    cell = i % (indptr.size - 1)
    return columns[indptr[cell] : indptr[cell + 1]], values[indptr[cell] : indptr[cell + 1]]


# -- negative binomial ------------------------------------------------------------------------


@_loop
def _nb_zeros(mean, factor, theta, inverse, value, slope, theta_slope):
    for j in range(mean.size):
        mean[j] *= factor
        ratio = mean[j] * inverse[j]
        log_ratio = _log(F(1) + ratio, ratio)
        share = ratio / (F(1) + ratio)
        value[j] = -theta[j] * log_ratio
        slope[j] = -theta[j] * share
        theta_slope[j] = theta[j] * (theta[j] * inverse[j] * share - log_ratio)


@_loop
def _gather_counts(columns, values, mean, factor, theta, kept):
    """Fill rows of ``kept`` with what the log-probability of each count above zero is made of."""
    for k in range(columns.size):
        j, count = columns[k], values[k]
        kept[COUNT, k], kept[MEAN, k], kept[THETA, k] = count, mean[j] * factor, theta[j]
        # a ratio of gamma functions is a product, whose logarithm is taken of many at once
        product, by_theta, value = F(1), F(0), 0.0
        if count == 1 or count == 2 or count == 3:
            for step in range(int(count)):
                product *= theta[j] + F(step)
                by_theta += F(1) / (theta[j] + F(step))
            value = -LOG_FACTORIALS[int(count)]
        else:
            rising, slope = _rising(D(theta[j]), D(count))
            by_theta, value = F(slope), rising - _log_factorial(D(count))
        kept[PRODUCT, k], kept[VALUE, k], kept[BY_THETA, k] = product, value, by_theta


@_loop
def _nb_counts(count, mean, theta, product, value, by_mean, by_theta):
    """Turn what was gathered into log NB and its derivatives by log mean and log theta."""
    eps = F(EPS)
    for k in range(count.size):
        a = theta[k] + eps
        ratio = mean[k] / a
        log_ratio = _log(F(1) + ratio, ratio)
        inverse = F(1) / (a + mean[k])
        # of log((mean + EPS) / (a + mean)) the argument less one is known exactly
        log_share = _log((mean[k] + eps) * inverse, -theta[k] * inverse)
        excess = (count[k] * a - theta[k] * mean[k]) * inverse
        rising = _log(product[k], product[k] - F(1))
        value[k] += rising + count[k] * log_share - theta[k] * log_ratio
        by_mean[k] = excess - count[k] * eps / (mean[k] + eps)
        by_theta[k] = theta[k] * (by_theta[k] - log_ratio - excess / a)


@_loop
def _log_nb(columns, values, mean, factor, theta, kept):
    _gather_counts(columns, values, mean, factor, theta, kept)
    n = columns.size
    _nb_counts(
        kept[COUNT, :n], kept[MEAN, :n], kept[THETA, :n], kept[PRODUCT, :n], kept[VALUE, :n],
        kept[BY_MEAN, :n], kept[BY_THETA, :n],
    )  # fmt: skip


@_loop
def _scatter(columns, kept, value, slope, theta_slope):
    for k in range(columns.size):
        if kept[COUNT, k] > 0:
            j = columns[k]
            value[j], slope[j] = kept[VALUE, k], kept[BY_MEAN, k]
            theta_slope[j] = kept[BY_THETA, k]


@_loop
def nb_rows(
    start, stop, indptr, columns, values, unscaled, bias, theta, inverse, log_size, nats, size_slope, theta_slope
):
    """Negative binomial: ``unscaled`` is overwritten by derivatives by itself."""
    mean, value = np.empty(unscaled.shape[1], F), np.empty(unscaled.shape[1], F)
    kept = np.empty((N_KEPT, unscaled.shape[1]), F)
    for i in range(start, stop):
        row = i % theta.shape[0]
        size = math.exp(log_size[i])
        factor = F(size / _exponentials(unscaled[i], bias, mean))
        here, some = _counts_of(i, indptr, columns, values)
        _log_nb(here, some, mean, factor, theta[row], kept)
        _nb_zeros(mean, factor, theta[row], inverse[row], value, unscaled[i], theta_slope[i])
        _scatter(here, kept, value, unscaled[i], theta_slope[i])
        nats[i] = -_sum(value)
        size_slope[i] = _through_softmax(mean, size, unscaled[i])


# -- zero-inflated negative binomial ----------------------------------------------------------


@_loop
def _zinb_zeros(mean, factor, theta, inverse, logits, bias, value, slope, theta_slope):
    for j in range(mean.size):
        mean[j] *= factor
        ratio = mean[j] * inverse[j]
        log_ratio = _log(F(1) + ratio, ratio)
        s, q = _exp_parts(-theta[j] * log_ratio)
        odds = _exp(min(logits[j] + bias[j], MOST_ODDS))
        # a division is dear: one for both denominators
        both = F(1) / ((F(1) + ratio) * (F(1) + odds))
        share, kept = ratio * (F(1) + odds) * both, (F(1) + ratio) * both
        # of a zero: odds by inflation, by_chance by counting, up to a common factor
        by_chance = s * q + s
        change = kept * (s * q + (s - F(1)))
        value[j] = _log((odds + by_chance) * kept, change)
        either = F(1) / (odds + by_chance)
        explained = by_chance * either
        logits[j] = -odds * either * change
        slope[j] = -explained * theta[j] * share
        theta_slope[j] = explained * theta[j] * (theta[j] * inverse[j] * share - log_ratio)


@_loop
def _not_replaced(logit, value):
    """Add the log-probability that a count was not replaced, and turn logits into its derivative."""
    for k in range(logit.size):
        odds = _exp(-abs(logit[k]))
        value[k] -= max(logit[k], F(0)) + _log(F(1) + odds, odds)
        logit[k] = -(F(1) if logit[k] > 0 else odds) / (F(1) + odds)


@_loop
def zinb_rows(
    start, stop, indptr, columns, values, unscaled, bias, logits, logits_bias, theta, inverse, log_size, nats, size_slope, theta_slope
):  # fmt: skip
    """Zero-inflated: ``unscaled`` and ``logits`` are overwritten by derivatives by themselves."""
    mean, value = np.empty(unscaled.shape[1], F), np.empty(unscaled.shape[1], F)
    kept = np.empty((N_KEPT, unscaled.shape[1]), F)
    for i in range(start, stop):
        row = i % theta.shape[0]
        size = math.exp(log_size[i])
        factor = F(size / _exponentials(unscaled[i], bias, mean))
        here, some = _counts_of(i, indptr, columns, values)
        _log_nb(here, some, mean, factor, theta[row], kept)
        for k in range(here.size):
            kept[LOGIT, k] = logits[i, here[k]] + logits_bias[here[k]]
        _not_replaced(kept[LOGIT, : here.size], kept[VALUE, : here.size])
        _zinb_zeros(
            mean, factor, theta[row], inverse[row], logits[i], logits_bias, value, unscaled[i], theta_slope[i]
        )  # fmt: skip
        _scatter(here, kept, value, unscaled[i], theta_slope[i])
        for k in range(here.size):
            if kept[COUNT, k] > 0:
                logits[i, here[k]] = kept[LOGIT, k]
        nats[i] = -_sum(value)
        size_slope[i] = _through_softmax(mean, size, unscaled[i])


# -- Poisson ----------------------------------------------------------------------------------


@_loop
def _poisson_zeros(mean, factor, value, slope):
    for j in range(mean.size):
        mean[j] *= factor
        value[j] = -mean[j]
        slope[j] = -mean[j]


@_loop
def poisson_rows(start, stop, indptr, columns, values, unscaled, bias, log_size, nats, size_slope):
    """Poisson: ``unscaled`` is overwritten by derivatives by itself."""
    mean, value = np.empty(unscaled.shape[1], F), np.empty(unscaled.shape[1], F)
    tiny = np.finfo(F).tiny
    for i in range(start, stop):
        size = math.exp(log_size[i])
        factor = F(size / _exponentials(unscaled[i], bias, mean))
        _poisson_zeros(mean, factor, value, unscaled[i])
        here, some = _counts_of(i, indptr, columns, values)
        for k in range(here.size):
            j, count = here[k], D(some[k])
            at = max(D(mean[j]), tiny)
            value[j] = count * math.log(at) - at - _log_factorial(count)
            unscaled[i, j] = count - at
        nats[i] = -_sum(value)
        size_slope[i] = _through_softmax(mean, size, unscaled[i])


# -- the first layer of an encoder --------------------------------------------------------------


@_loop
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


# gene after gene, so that weights, which do not fit into a cache, are read in the order they lie in


@_loop
def counts_times(start, stop, starts, cells, values, weight, out):
    """Add to columns ``start`` to ``stop`` of ``out`` the product of counts and a dense matrix."""
    for j in range(starts.size - 1):
        terms = weight[j, start:stop]
        for k in range(starts[j], starts[j + 1]):
            value, sums = values[k], out[cells[k], start:stop]
            for h in range(terms.size):
                sums[h] += value * terms[h]


@_loop
def transposed_counts_times(start, stop, starts, cells, values, grad, out):
    """Fill rows ``start`` to ``stop`` of ``out`` with the product of transposed counts and ``grad``."""
    for j in range(start, stop):
        sums = out[j]
        sums[:] = 0
        for k in range(starts[j], starts[j + 1]):
            value, terms = values[k], grad[cells[k]]
            for h in range(sums.size):
                sums[h] += value * terms[h]
