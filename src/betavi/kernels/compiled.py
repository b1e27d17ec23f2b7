"""All functions that Numba compiles: log-probabilities with derivatives, and products of counts.

Numba caches compiled functions on disk until *their own* file changes, whatever they call. So all
functions, options and constants are here, and nothing of this package is imported.

Log-probabilities are computed one cell at a time, so that a cell's values stay in the processor's
cache. Zeros use vectorised single precision, and counts above zero avoid cancellation. Values are
those of :mod:`betavi.kernels.plain`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

EPS = 1e-8
"""``EPS`` of :mod:`betavi.kernels.plain`, which cannot be imported here. A test compares them."""

D, F, I = np.float64, np.float32, np.int32
CAREFUL = {"contract", "nsz", "arcp"}
"""Fast-math flags that change rounding only, and do not rearrange differences of similar numbers."""


def _compiler(liberties, **options):
    options |= {"fastmath": liberties, "error_model": "numpy", "nogil": True}

    def compiled(function):
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            # no writable folder for the cache
            return njit(**options)(function)

    return compiled


loop = _compiler(CAREFUL)
"""Compile a function called from Python."""

# without inlining, a process that compiles and one that reads the cache differ in the last digit
inlined = _compiler(CAREFUL, forceinline=True)
"""Compile a function called by others in this file."""

reduction = _compiler(CAREFUL | {"reassoc", "nnan"}, forceinline=True)
"""Compile a function called by others in this file, which may sum in any order."""

# limits set by floating-point precision, not tuned on data
SMALL = 24
"""Largest count for which a ratio of gamma functions is computed as a product."""

SHIFT = 12
"""Smallest argument of Stirling's series."""

LOG_FACTORIALS = np.array([math.lgamma(count + 1.0) for count in range(1024)])

BLOCK = 512
"""Number of entries summed in single precision before they are added in double precision."""

SIGNLESS, LEAST = I(0x7FFFFFFF), I(-0x80000000)
"""All bits of an integer except its sign, and the smallest integer."""

INFINITY = I(0x7F800000)
"""Bits of infinity. The bits of NaN are a larger integer."""

MOST_ODDS = F(60.0)
"""Logit beyond which single precision sees no difference."""

COUNT, MEAN, THETA, PRODUCT, VALUE, BY_MEAN, BY_THETA, LOGIT = range(8)
"""Rows of ``buffer``, which holds intermediate values for the counts above zero of a cell."""

N_BUFFER = 8

# -- special functions -----------------------------------------------------------------------
# polynomials of Cephes (Moshier, 1989) in single precision, accurate to two units in the last place:
# Numba has vectorised functions only with Intel's runtime


@inlined
def exp_parts(x):
    """Return s and q with exp(x) = s * (1 + q). s is a power of two, and q is exact near zero."""
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


@inlined
def exp(x):
    s, q = exp_parts(x)
    return s * q + s


@inlined
def log(w, change):
    """Return log w for w = 1 + change, where the change is known more exactly than w."""
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


@inlined
def _stirling(z):
    """Return log Gamma(z) for z of at least SHIFT."""
    i = 1.0 / z
    w = i * i
    return (z - 0.5) * math.log(z) - z + i * (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w / 1680)))


@inlined
def _digamma(z):
    below = 0.0
    while z < SHIFT:
        below += 1.0 / z
        z += 1.0
    i = 1.0 / z
    w = i * i
    series = w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w * (1 / 240 - w / 132))))
    return math.log(z) - 0.5 * i - series - below


@inlined
def rising(theta, count):
    """Return log Gamma(theta + count) - log Gamma(theta), and its derivative by theta."""
    n = int(count)
    high = theta + count
    if n != count:
        return math.lgamma(high) - math.lgamma(theta), _digamma(high) - _digamma(theta)
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
        low = theta + SHIFT
        value += _stirling(high) - _stirling(low)
        slope += _digamma(high) - _digamma(low)
    return value, slope


@inlined
def log_factorial(count):
    n = int(count)
    is_listed = n == count and n < LOG_FACTORIALS.size
    return LOG_FACTORIALS[n] if is_listed else math.lgamma(count + 1.0)


# -- what all likelihoods share ---------------------------------------------------------------


@reduction
def _sum(values):
    total = 0.0
    whole = values.size - values.size % BLOCK
    # a constant length lets the compiler vectorise the sum
    for start in range(0, whole, BLOCK):
        part = F(0)
        for j in range(start, start + BLOCK):
            part += values[j]
        total += part
    part = F(0)
    for j in range(whole, values.size):
        part += values[j]
    return total + part


@inlined
def _sortable(bits):
    """Map the bits of a float to an integer of the same order, or back."""
    return I(bits ^ (I(bits >> I(31)) & SIGNLESS))


@inlined
def _shifted(unscaled, bias, out):
    """Fill ``out`` with unscaled + bias. Return the largest, NaN if the softmax is undefined."""
    # compilers vectorise a maximum of integers, but not of floats
    largest, widest = LEAST, I(0)
    for j in range(out.size):
        value = unscaled[j] + bias[j]
        out[j] = value
        bits = F(value).view(I)
        largest, widest = max(largest, _sortable(bits)), max(widest, I(bits & SIGNLESS))
    highest = I(_sortable(largest)).view(F)
    return F(np.nan) if widest > INFINITY or np.isinf(highest) else highest


@inlined
def _exponentials(unscaled, bias, out):
    """Fill ``out`` with exp(unscaled + bias), up to a factor, and return the sum."""
    largest = _shifted(unscaled, bias, out)
    if np.isnan(largest):
        return math.nan
    for j in range(out.size):
        out[j] = exp(out[j] - largest)
    return _sum(out)


@inlined
def _softmax_backward(mean, size, slope):
    """Turn derivatives by log means into those by the softmax's argument. Return their sum."""
    total = _sum(slope)
    share = F(total / size)
    for j in range(mean.size):
        slope[j] -= mean[j] * share
    return total


@inlined
def _set_nan(i, total, nats, size_slope, slope):
    """Set a cell to NaN and return True if its softmax is undefined, which bit operations hide."""
    if np.isnan(total):
        nats[i] = size_slope[i] = math.nan
        slope[:] = math.nan
        return True
    return False


@inlined
def _row_counts(i, indptr, columns, values):
    """Return columns and values of the cell of a row. Several draws of the cells share them."""
    cell = i % (indptr.size - 1)
    return columns[indptr[cell] : indptr[cell + 1]], values[indptr[cell] : indptr[cell + 1]]


# -- negative binomial ------------------------------------------------------------------------


@inlined
def _nb_zeros(mean, factor, theta, inverse, value, slope, theta_slope):
    for j in range(mean.size):
        mean[j] *= factor
        ratio = mean[j] * inverse[j]
        log_ratio = log(F(1) + ratio, ratio)
        share = ratio / (F(1) + ratio)
        value[j] = -theta[j] * log_ratio
        slope[j] = -theta[j] * share
        theta_slope[j] = theta[j] * (theta[j] * inverse[j] * share - log_ratio)


@inlined
def _gather_counts(columns, values, mean, factor, theta, buffer):
    """Fill ``buffer`` with the terms of the log-probability of each count above zero."""
    for k in range(columns.size):
        j, count = columns[k], values[k]
        buffer[COUNT, k], buffer[MEAN, k], buffer[THETA, k] = count, mean[j] * factor, theta[j]
        # for small counts, a ratio of gamma functions is a product, with its logarithm taken later
        product, by_theta, value = F(1), F(0), 0.0
        if count == 1 or count == 2 or count == 3:
            for step in range(int(count)):
                product *= theta[j] + F(step)
                by_theta += F(1) / (theta[j] + F(step))
            value = -LOG_FACTORIALS[int(count)]
        else:
            ratio, slope = rising(D(theta[j]), D(count))
            by_theta, value = F(slope), ratio - log_factorial(D(count))
        buffer[PRODUCT, k], buffer[VALUE, k], buffer[BY_THETA, k] = product, value, by_theta


@inlined
def _nb_counts(count, mean, theta, product, value, by_mean, by_theta):
    """Turn the terms into log NB and its derivatives by log mean and log theta."""
    eps = F(EPS)
    for k in range(count.size):
        a = theta[k] + eps
        ratio = mean[k] / a
        log_ratio = log(F(1) + ratio, ratio)
        inverse = F(1) / (a + mean[k])
        # the argument of log((mean + EPS) / (a + mean)), minus one, is known exactly
        log_share = log((mean[k] + eps) * inverse, -theta[k] * inverse)
        excess = (count[k] * a - theta[k] * mean[k]) * inverse
        log_product = log(product[k], product[k] - F(1))
        value[k] += log_product + count[k] * log_share - theta[k] * log_ratio
        by_mean[k] = excess - count[k] * eps / (mean[k] + eps)
        by_theta[k] = theta[k] * (by_theta[k] - log_ratio - excess / a)


@inlined
def _log_nb(columns, values, mean, factor, theta, buffer):
    _gather_counts(columns, values, mean, factor, theta, buffer)
    n = columns.size
    _nb_counts(
        buffer[COUNT, :n], buffer[MEAN, :n], buffer[THETA, :n], buffer[PRODUCT, :n], buffer[VALUE, :n],
        buffer[BY_MEAN, :n], buffer[BY_THETA, :n],
    )  # fmt: skip


@inlined
def _scatter(columns, buffer, value, slope, theta_slope):
    for k in range(columns.size):
        if buffer[COUNT, k] > 0:
            j = columns[k]
            value[j], slope[j] = buffer[VALUE, k], buffer[BY_MEAN, k]
            theta_slope[j] = buffer[BY_THETA, k]


@loop
def nb_rows(
    indptr, columns, values, unscaled, bias, theta, inverse, log_size, nats, size_slope, theta_slope
):  # fmt: skip
    """Compute the negative log-likelihood of each cell under the negative binomial, into ``nats``.

    ``unscaled``, the argument of the softmax, is overwritten by the derivatives of the
    log-likelihood. ``size_slope`` and ``theta_slope`` get those by log size and by log theta.
    """
    mean, value = np.empty(unscaled.shape[1], F), np.empty(unscaled.shape[1], F)
    buffer = np.empty((N_BUFFER, unscaled.shape[1]), F)
    for i in range(len(unscaled)):
        row = i % theta.shape[0]
        size = math.exp(log_size[i])
        total = _exponentials(unscaled[i], bias, mean)
        if _set_nan(i, total, nats, size_slope, unscaled[i]):
            theta_slope[i][:] = math.nan
            continue
        factor = F(size / total)
        here, some = _row_counts(i, indptr, columns, values)
        _log_nb(here, some, mean, factor, theta[row], buffer)
        _nb_zeros(mean, factor, theta[row], inverse[row], value, unscaled[i], theta_slope[i])
        _scatter(here, buffer, value, unscaled[i], theta_slope[i])
        nats[i] = -_sum(value)
        size_slope[i] = _softmax_backward(mean, size, unscaled[i])


# -- zero-inflated negative binomial ----------------------------------------------------------


@inlined
def _zinb_zeros(mean, factor, theta, inverse, logits, bias, value, slope, theta_slope):
    for j in range(mean.size):
        mean[j] *= factor
        ratio = mean[j] * inverse[j]
        log_ratio = log(F(1) + ratio, ratio)
        s, q = exp_parts(-theta[j] * log_ratio)
        odds = exp(min(logits[j] + bias[j], MOST_ODDS))
        # one division for both denominators, because divisions are slow
        both = F(1) / ((F(1) + ratio) * (F(1) + odds))
        share, not_inflated = ratio * (F(1) + odds) * both, (F(1) + ratio) * both
        # a zero comes from inflation (odds) or from counting (by_chance), up to a common factor
        by_chance = s * q + s
        change = not_inflated * (s * q + (s - F(1)))
        value[j] = log((odds + by_chance) * not_inflated, change)
        either = F(1) / (odds + by_chance)
        explained = by_chance * either
        logits[j] = -odds * either * change
        slope[j] = -explained * theta[j] * share
        theta_slope[j] = explained * theta[j] * (theta[j] * inverse[j] * share - log_ratio)


@inlined
def _not_replaced(logit, value):
    """Add the log-probability that a count was not replaced. Turn logits into its derivative."""
    for k in range(logit.size):
        odds = exp(-abs(logit[k]))
        value[k] -= max(logit[k], F(0)) + log(F(1) + odds, odds)
        logit[k] = -(F(1) if logit[k] > 0 else odds) / (F(1) + odds)


@loop
def zinb_rows(
    indptr, columns, values, unscaled, bias, logits, logits_bias, theta, inverse, log_size, nats, size_slope, theta_slope
):  # fmt: skip
    """Like :func:`nb_rows`, with zero inflation. Derivatives also overwrite ``logits``."""
    mean, value = np.empty(unscaled.shape[1], F), np.empty(unscaled.shape[1], F)
    buffer = np.empty((N_BUFFER, unscaled.shape[1]), F)
    for i in range(len(unscaled)):
        row = i % theta.shape[0]
        size = math.exp(log_size[i])
        total = _exponentials(unscaled[i], bias, mean)
        if _set_nan(i, total, nats, size_slope, unscaled[i]):
            theta_slope[i][:] = math.nan
            continue
        factor = F(size / total)
        here, some = _row_counts(i, indptr, columns, values)
        _log_nb(here, some, mean, factor, theta[row], buffer)
        for k in range(here.size):
            buffer[LOGIT, k] = logits[i, here[k]] + logits_bias[here[k]]
        _not_replaced(buffer[LOGIT, : here.size], buffer[VALUE, : here.size])
        _zinb_zeros(
            mean, factor, theta[row], inverse[row], logits[i], logits_bias, value, unscaled[i], theta_slope[i]
        )  # fmt: skip
        _scatter(here, buffer, value, unscaled[i], theta_slope[i])
        for k in range(here.size):
            if buffer[COUNT, k] > 0:
                logits[i, here[k]] = buffer[LOGIT, k]
        nats[i] = -_sum(value)
        size_slope[i] = _softmax_backward(mean, size, unscaled[i])


# -- Poisson ----------------------------------------------------------------------------------


@inlined
def _poisson_zeros(mean, factor, value, slope):
    for j in range(mean.size):
        mean[j] *= factor
        value[j] = -mean[j]
        slope[j] = -mean[j]


@loop
def poisson_rows(indptr, columns, values, unscaled, bias, log_size, nats, size_slope):
    """Like :func:`nb_rows`, for the Poisson distribution."""
    mean, value = np.empty(unscaled.shape[1], F), np.empty(unscaled.shape[1], F)
    tiny = np.finfo(F).tiny
    for i in range(len(unscaled)):
        size = math.exp(log_size[i])
        total = _exponentials(unscaled[i], bias, mean)
        if _set_nan(i, total, nats, size_slope, unscaled[i]):
            continue
        factor = F(size / total)
        _poisson_zeros(mean, factor, value, unscaled[i])
        here, some = _row_counts(i, indptr, columns, values)
        for k in range(here.size):
            j, count = here[k], D(some[k])
            at = max(D(mean[j]), tiny)
            value[j] = count * math.log(at) - at - log_factorial(count)
            unscaled[i, j] = count - at
        nats[i] = -_sum(value)
        size_slope[i] = _softmax_backward(mean, size, unscaled[i])


# -- products of counts -----------------------------------------------------------------------


@loop
def by_gene(indptr, columns, values, n_genes):
    """Convert CSR to CSC: return the start of each gene, and cell and value of each count."""
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
def counts_times(indptr, columns, values, weight, out):
    """Add the product of CSR counts and a dense matrix to ``out``."""
    for i in range(len(out)):
        sums, k, end = out[i], indptr[i], indptr[i + 1]
        # four entries at a time, so that sums are read and written once for them
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
