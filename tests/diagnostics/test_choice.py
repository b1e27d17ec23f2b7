from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from betavi.diagnostics import suggest


@pytest.fixture
def curve():
    """A curve D = 100 + 20 / R, whose slope is -β at R = sqrt(20 / β)."""
    beta = np.geomspace(0.05, 20, 25)
    rate = np.sqrt(20 / beta)
    distortion = 100 + 20 / rate
    return pd.DataFrame(
        {"beta": beta, "rate": rate, "distortion": distortion, "elbo": -rate - distortion}
    )


def test_held_out_is_the_highest_elbo(curve):
    chosen = suggest(curve)
    assert chosen.beta == pytest.approx(1.0)
    assert "-108.9 nats" in chosen.reason
    assert "end of the range" not in chosen.reason
    assert "end of the range" in suggest(curve[curve["beta"] > 2]).reason
    assert str(chosen).startswith("β = 1: the evidence lower bound")


def test_the_knee_is_where_the_chord_is_furthest(curve):
    chosen = suggest(curve, "knee")
    # where the slope is that of the chord: -20 / (R_min * R_max), which is β there
    expected = 20 / (curve["rate"].min() * curve["rate"].max())
    assert chosen.beta == pytest.approx(expected, rel=0.3)


def test_a_rate_is_read_off_between_points(curve):
    assert suggest(curve, "rate", rate=3.1).beta == pytest.approx(20 / 3.1**2, rel=0.01)
    shuffled = curve.sample(frac=1, random_state=0)
    assert suggest(shuffled, "rate", rate=3.1).beta == pytest.approx(20 / 3.1**2, rel=0.01)


@pytest.mark.parametrize("rate", [None, 0.1, 100, np.nan])
def test_a_rate_off_the_curve_is_refused(curve, rate):
    with pytest.raises(ValueError, match=r"1.00 to 20.00 nats per cell"):
        suggest(curve, "rate", rate=rate)


def test_bad_questions(curve):
    with pytest.raises(ValueError, match="'held_out', 'knee', 'rate'"):
        suggest(curve, "best")
    with pytest.raises(ValueError, match=r"only 1 point.*at least 2"):
        suggest(curve.iloc[:1])
