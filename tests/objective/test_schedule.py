from __future__ import annotations

import math

import numpy as np
import pytest

from betavi.objective import SCHEDULES, join, linear, repeat, scale, schedule_of
from betavi.objective.schedule import end_of_warmup
from tests.contracts import check_schedule


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_keeps_the_contract(name):
    check_schedule(SCHEDULES[name])


def test_shapes_at_half_of_the_warmup():
    found = {name: schedule_of(name, 0.5)(0.25 - 1e-12) for name in SCHEDULES}
    assert found == pytest.approx({"constant": 1, "linear": 0.5, "cosine": 0.5, "cyclical": 1})
    assert schedule_of("cosine", 1.0)(0.25) == pytest.approx((1 - math.sqrt(0.5)) / 2)


def test_cycles_climb_for_half_of_their_length():
    schedule = schedule_of("cyclical", 0.8)
    beginnings = [cycle * 0.2 for cycle in range(4)]
    # a little after the beginning, for the sake of rounding
    assert [schedule(begin + 1e-9) for begin in beginnings] == pytest.approx([0] * 4, abs=1e-6)
    assert [schedule(begin + 0.05) for begin in beginnings] == pytest.approx([0.5] * 4)
    assert [schedule(begin + 0.15) for begin in beginnings] == [1.0] * 4


def test_where_schedules_settle():
    assert end_of_warmup("constant", 0.3) == 0
    assert end_of_warmup("cosine", 0.3) == 0.3
    assert end_of_warmup(lambda share: share, 0.3) == 1


def test_combinators():
    both = join([linear(1.0), lambda share: 1 - share], [0.4])
    assert [both(share) for share in (0.2, 0.4, 0.7, 1.0)] == pytest.approx([0.5, 1, 0.5, 0])
    assert join([linear(1.0)], [])(0.3) == 0.3
    assert scale(repeat(linear(1.0), 4), 2.0)(0.375) == pytest.approx(1.0)
    # a part without length is passed over
    assert join([lambda _: 7.0, lambda _: 1.0], [0.0])(0.0) == 1.0


@pytest.mark.parametrize("boundaries", [[], [0.2, 0.4], [1.2], [-0.1]])
def test_boundaries_have_to_fit(boundaries):
    with pytest.raises(ValueError, match=r"boundaries|Boundaries"):
        join([linear(1.0), linear(1.0)], boundaries)


def test_boundaries_have_to_ascend():
    with pytest.raises(ValueError, match="ascend"):
        join([linear(1.0)] * 3, [0.5, 0.2])


@pytest.mark.parametrize("warmup", [-0.1, 1.1, 400, math.nan])
def test_a_warmup_is_a_share(warmup):
    with pytest.raises(ValueError, match="share of the planned steps"):
        schedule_of("linear", warmup)


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan, None, "1"])
def test_what_a_callable_returns_is_checked_before_training(value):
    with pytest.raises(ValueError, match="at 90% of the steps"):
        schedule_of(lambda share: value if share >= 0.9 else np.float32(1), 0.25)


def test_unknown_schedules_list_the_table():
    with pytest.raises(ValueError, match="'constant', 'linear', 'cosine', 'cyclical'"):
        schedule_of("exponential", 0.25)


def test_nothing_is_repeated_less_than_once():
    with pytest.raises(ValueError, match="n_times"):
        repeat(lambda share: share, 0)
