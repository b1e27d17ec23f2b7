"""Special functions that Numba compiles into vector instructions, or calls once for each count.

Numba has no vectorised exponential or logarithm without Intel's runtime. These are the polynomials of
Cephes (Moshier, 1989), with an error of at most two units in the last place of single precision.

Numba keeps what it compiled of :mod:`betavi.kernels.loops` until that file changes, also if this one
does: touch both.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

D, F, I = np.float64, np.float32, np.int32
CAREFUL = {"contract", "nsz", "arcp"}
"""Liberties that change no more than rounding, and leave differences of like numbers alone."""


def _compiler(liberties):
    options = {"fastmath": liberties, "error_model": "numpy", "nogil": True}

    def compiled(function):
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            # there is no folder in which it could be kept for the next process
            return njit(**options)(function)

    return compiled


loop = _compiler(CAREFUL)
"""Compiles a function whose loops run side by side."""

reduction = _compiler(CAREFUL | {"reassoc", "nnan"})
"""Compiles a function that may take sums in any order."""

SMALL = 24
"""Up to this count a ratio of gamma functions is a product."""

SHIFT = 12
"""By how much a small argument is raised before Stirling's series is used of it."""

LOG_FACTORIALS = np.array([math.lgamma(count + 1.0) for count in range(1024)])


@loop
def exp_parts(x):
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


@loop
def exp(x):
    s, q = exp_parts(x)
    return s * q + s


@loop
def log(w, change):
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


@loop
def _stirling(z):
    """Return log Gamma(z) for z of at least SHIFT."""
    i = 1.0 / z
    w = i * i
    return (z - 0.5) * math.log(z) - z + i * (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w / 1680)))


@loop
def _digamma(z):
    below = 0.0
    while z < SHIFT:
        below += 1.0 / z
        z += 1.0
    i = 1.0 / z
    w = i * i
    series = w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w * (1 / 240 - w / 132))))
    return math.log(z) - 0.5 * i - series - below


@loop
def rising(theta, count):
    """Return log Gamma(theta + count) - log Gamma(theta), and its derivative by theta."""
    n = int(count)
    if n != count:
        return math.lgamma(theta + count) - math.lgamma(theta), _digamma(theta + count) - _digamma(
            theta
        )
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


@loop
def log_factorial(count):
    n = int(count)
    is_listed = n == count and n < LOG_FACTORIALS.size
    return LOG_FACTORIALS[n] if is_listed else math.lgamma(count + 1.0)
