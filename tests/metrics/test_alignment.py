from __future__ import annotations

import numpy as np
import pytest

from betavi.metrics import foscttm


def test_foscttm_counts_who_is_closer():
    one, other = np.array([[0.0], [1.0], [3.0]]), np.array([[0.1], [2.6], [2.4]])
    # by hand: how many of the others are closer than a cell's own match
    forwards, backwards = [0, 2, 1], [0, 1, 0]
    assert foscttm(one, other) == pytest.approx((sum(forwards) / 6 + sum(backwards) / 6) / 2)


def test_foscttm_is_a_half_by_chance():
    rng = np.random.default_rng(0)
    found = foscttm(rng.normal(size=(3000, 4)), rng.normal(size=(3000, 4)))
    assert found == pytest.approx(0.5, abs=0.01)


def test_foscttm_of_other_shapes_is_refused():
    with pytest.raises(ValueError, match="must hold the same cells, at least two"):
        foscttm(np.zeros((3, 2)), np.zeros((4, 2)))
