"""The contract of a schedule: a function of the warm-up's length."""

from __future__ import annotations

import numpy as np
import pytest

SHARES = np.linspace(0, 1, 1001)


def check_schedule(build):
    for warmup in (0.0, 0.1, 0.25, 1 / 3, 1.0):
        beta_is_exact_once_warm_and_never_above(build(warmup), warmup)
    begins_at_nothing_or_does_not_change(build)
    a_longer_warmup_is_the_same_shape_stretched(build)


def beta_is_exact_once_warm_and_never_above(schedule, warmup):
    assert all(schedule(share) == 1.0 for share in [*SHARES[warmup <= SHARES], warmup, 1.0])
    assert all(0 <= schedule(share) <= 1 for share in SHARES)


def begins_at_nothing_or_does_not_change(build):
    factors = {build(0.5)(share) for share in SHARES}
    assert build(0.5)(0.0) == 0.0 or factors == {1.0}


def a_longer_warmup_is_the_same_shape_stretched(build):
    short, long = build(0.2), build(0.8)
    # away from where a cycle starts anew
    for share in (0.01, 0.06, 0.13, 0.19):
        assert short(share) == pytest.approx(long(4 * share))
