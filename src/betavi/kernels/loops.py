"""Loops over the counts of a minibatch: log-probabilities and their derivatives in one pass.

One cell at a time, so that what is computed of it stays in the processor's cache. Zeros go through
vectorised single precision. Of the counts above zero, nothing is computed by cancellation that can be
had without it. Values are those of :mod:`betavi.kernels.plain`.

Each function does the rows of a minibatch from ``start`` to ``stop``, which is one thread's part.
"""

from __future__ import annotations

import math

import numpy as np

from betavi.kernels.plain import EPS
from betavi.kernels.special import (
    LOG_FACTORIALS,
    D,
    F,
    I,
    exp,
    exp_parts,
    log,
    log_factorial,
    loop,
    reduction,
    rising,
)

BLOCK = 512
"""Entries that are summed in single precision before they are added in double."""

SIGNLESS, LEAST = I(0x7FFFFFFF), I(-0x80000000)
"""All bits of a whole number but its sign, and the least there is."""

INFINITY = I(0x7F800000)
"""Bits of infinity, beyond which those of what is no number are."""

MOST_ODDS = F(60.0)
"""Logit beyond which single precision knows no difference."""

COUNT, MEAN, THETA, PRODUCT, VALUE, BY_MEAN, BY_THETA, LOGIT = range(8)
"""Rows of what is kept of the counts above zero of a cell."""

N_KEPT = 8

# -- what all likelihoods share ---------------------------------------------------------------


@reduction
def _sum(values):
    total = 0.0
    whole = values.size - values.size % BLOCK
    # a length that is known is what lets a compiler add many at once
    for start in range(0, whole, BLOCK):
        part = F(0)
        for j in range(start, start + BLOCK):
            part += values[j]
        total += part
    part = F(0)
    for j in range(whole, values.size):
        part += values[j]
    return total + part


@loop
def _in_order(bits):
    """Return the bits of a number so that they are in the order of numbers, or undo it."""
    return I(bits ^ (I(bits >> I(31)) & SIGNLESS))


@loop
def _shifted(unscaled, bias, out):
    """Fill ``out`` with unscaled + bias, and return the largest; NaN if there is no softmax of it."""
    # compilers split a maximum of whole numbers by themselves, and none of fractions
    largest, widest = LEAST, I(0)
    for j in range(out.size):
        value = unscaled[j] + bias[j]
        out[j] = value
        bits = F(value).view(I)
        largest, widest = max(largest, _in_order(bits)), max(widest, I(bits & SIGNLESS))
    highest = I(_in_order(largest)).view(F)
    return F(np.nan) if widest > INFINITY or np.isinf(highest) else highest


@loop
def _exponentials(unscaled, bias, out):
    """Fill ``out`` with exp(unscaled + bias), up to a factor, and return their sum."""
    largest = _shifted(unscaled, bias, out)
    if np.isnan(largest):
        return math.nan
    for j in range(out.size):
        out[j] = exp(out[j] - largest)
    return _sum(out)


@loop
def _through_softmax(mean, size, slope):
    """Turn derivatives by log means into those by what the softmax is of; return their sum."""
    total = _sum(slope)
    share = F(total / size)
    for j in range(mean.size):
        slope[j] -= mean[j] * share
    return total


@loop
def _lost(i, total, nats, size_slope, slope):
    """Return whether a cell has no softmax, as in a run that has diverged; then all of it is NaN.

    Arithmetic on bits would make numbers of it.
    """
    if np.isnan(total):
        nats[i] = size_slope[i] = math.nan
        slope[:] = math.nan
        return True
    return False


@loop
def _counts_of(i, indptr, columns, values):
    """Return columns and values of a row; of several draws of the same cells, of its cell."""
    cell = i % (indptr.size - 1)
    return columns[indptr[cell] : indptr[cell + 1]], values[indptr[cell] : indptr[cell + 1]]


# -- negative binomial ------------------------------------------------------------------------


@loop
def _nb_zeros(mean, factor, theta, inverse, value, slope, theta_slope):
    for j in range(mean.size):
        mean[j] *= factor
        ratio = mean[j] * inverse[j]
        log_ratio = log(F(1) + ratio, ratio)
        share = ratio / (F(1) + ratio)
        value[j] = -theta[j] * log_ratio
        slope[j] = -theta[j] * share
        theta_slope[j] = theta[j] * (theta[j] * inverse[j] * share - log_ratio)


@loop
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
            ratio, slope = rising(D(theta[j]), D(count))
            by_theta, value = F(slope), ratio - log_factorial(D(count))
        kept[PRODUCT, k], kept[VALUE, k], kept[BY_THETA, k] = product, value, by_theta


@loop
def _nb_counts(count, mean, theta, product, value, by_mean, by_theta):
    """Turn what was gathered into log NB and its derivatives by log mean and log theta."""
    eps = F(EPS)
    for k in range(count.size):
        a = theta[k] + eps
        ratio = mean[k] / a
        log_ratio = log(F(1) + ratio, ratio)
        inverse = F(1) / (a + mean[k])
        # of log((mean + EPS) / (a + mean)) the argument less one is known exactly
        log_share = log((mean[k] + eps) * inverse, -theta[k] * inverse)
        excess = (count[k] * a - theta[k] * mean[k]) * inverse
        log_product = log(product[k], product[k] - F(1))
        value[k] += log_product + count[k] * log_share - theta[k] * log_ratio
        by_mean[k] = excess - count[k] * eps / (mean[k] + eps)
        by_theta[k] = theta[k] * (by_theta[k] - log_ratio - excess / a)


@loop
def _log_nb(columns, values, mean, factor, theta, kept):
    _gather_counts(columns, values, mean, factor, theta, kept)
    n = columns.size
    _nb_counts(
        kept[COUNT, :n], kept[MEAN, :n], kept[THETA, :n], kept[PRODUCT, :n], kept[VALUE, :n],
        kept[BY_MEAN, :n], kept[BY_THETA, :n],
    )  # fmt: skip


@loop
def _scatter(columns, kept, value, slope, theta_slope):
    for k in range(columns.size):
        if kept[COUNT, k] > 0:
            j = columns[k]
            value[j], slope[j] = kept[VALUE, k], kept[BY_MEAN, k]
            theta_slope[j] = kept[BY_THETA, k]


@loop
def nb_rows(
    start,
    stop,
    indptr,
    columns,
    values,
    unscaled,
    bias,
    theta,
    inverse,
    log_size,
    nats,
    size_slope,
    theta_slope,
):
    """Negative binomial: ``unscaled`` is overwritten by derivatives by itself."""
    mean, value = np.empty(unscaled.shape[1], F), np.empty(unscaled.shape[1], F)
    kept = np.empty((N_KEPT, unscaled.shape[1]), F)
    for i in range(start, stop):
        row = i % theta.shape[0]
        size = math.exp(log_size[i])
        total = _exponentials(unscaled[i], bias, mean)
        if _lost(i, total, nats, size_slope, unscaled[i]):
            theta_slope[i][:] = math.nan
            continue
        factor = F(size / total)
        here, some = _counts_of(i, indptr, columns, values)
        _log_nb(here, some, mean, factor, theta[row], kept)
        _nb_zeros(mean, factor, theta[row], inverse[row], value, unscaled[i], theta_slope[i])
        _scatter(here, kept, value, unscaled[i], theta_slope[i])
        nats[i] = -_sum(value)
        size_slope[i] = _through_softmax(mean, size, unscaled[i])


# -- zero-inflated negative binomial ----------------------------------------------------------


@loop
def _zinb_zeros(mean, factor, theta, inverse, logits, bias, value, slope, theta_slope):
    for j in range(mean.size):
        mean[j] *= factor
        ratio = mean[j] * inverse[j]
        log_ratio = log(F(1) + ratio, ratio)
        s, q = exp_parts(-theta[j] * log_ratio)
        odds = exp(min(logits[j] + bias[j], MOST_ODDS))
        # a division is dear: one for both denominators
        both = F(1) / ((F(1) + ratio) * (F(1) + odds))
        share, kept = ratio * (F(1) + odds) * both, (F(1) + ratio) * both
        # of a zero: odds by inflation, by_chance by counting, up to a common factor
        by_chance = s * q + s
        change = kept * (s * q + (s - F(1)))
        value[j] = log((odds + by_chance) * kept, change)
        either = F(1) / (odds + by_chance)
        explained = by_chance * either
        logits[j] = -odds * either * change
        slope[j] = -explained * theta[j] * share
        theta_slope[j] = explained * theta[j] * (theta[j] * inverse[j] * share - log_ratio)


@loop
def _not_replaced(logit, value):
    """Add the log-probability that a count was not replaced, and turn logits into its derivative."""
    for k in range(logit.size):
        odds = exp(-abs(logit[k]))
        value[k] -= max(logit[k], F(0)) + log(F(1) + odds, odds)
        logit[k] = -(F(1) if logit[k] > 0 else odds) / (F(1) + odds)


@loop
def zinb_rows(
    start, stop, indptr, columns, values, unscaled, bias, logits, logits_bias, theta, inverse, log_size, nats, size_slope, theta_slope
):  # fmt: skip
    """Zero-inflated: ``unscaled`` and ``logits`` are overwritten by derivatives by themselves."""
    mean, value = np.empty(unscaled.shape[1], F), np.empty(unscaled.shape[1], F)
    kept = np.empty((N_KEPT, unscaled.shape[1]), F)
    for i in range(start, stop):
        row = i % theta.shape[0]
        size = math.exp(log_size[i])
        total = _exponentials(unscaled[i], bias, mean)
        if _lost(i, total, nats, size_slope, unscaled[i]):
            theta_slope[i][:] = math.nan
            continue
        factor = F(size / total)
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


@loop
def _poisson_zeros(mean, factor, value, slope):
    for j in range(mean.size):
        mean[j] *= factor
        value[j] = -mean[j]
        slope[j] = -mean[j]


@loop
def poisson_rows(start, stop, indptr, columns, values, unscaled, bias, log_size, nats, size_slope):
    """Poisson: ``unscaled`` is overwritten by derivatives by itself."""
    mean, value = np.empty(unscaled.shape[1], F), np.empty(unscaled.shape[1], F)
    tiny = np.finfo(F).tiny
    for i in range(start, stop):
        size = math.exp(log_size[i])
        total = _exponentials(unscaled[i], bias, mean)
        if _lost(i, total, nats, size_slope, unscaled[i]):
            continue
        factor = F(size / total)
        _poisson_zeros(mean, factor, value, unscaled[i])
        here, some = _counts_of(i, indptr, columns, values)
        for k in range(here.size):
            j, count = here[k], D(some[k])
            at = max(D(mean[j]), tiny)
            value[j] = count * math.log(at) - at - log_factorial(count)
            unscaled[i, j] = count - at
        nats[i] = -_sum(value)
        size_slope[i] = _through_softmax(mean, size, unscaled[i])
