from __future__ import annotations

import numpy as np
import pytest

from betavi.datasets import draws


def test_counts_have_the_variance_of_their_inverse_dispersion():
    rng = np.random.default_rng(0)
    theta = np.array([2.0, np.inf, 0.5])
    counts = draws.draw_negative_binomial(rng, np.full((50_000, 3), 4.0), theta)
    np.testing.assert_allclose(counts.mean(axis=0), 4, rtol=0.03)
    np.testing.assert_allclose(counts.var(axis=0), 4 + 16 / theta, rtol=0.05)


def test_one_infinite_inverse_dispersion_gives_poisson_counts():
    rng = np.random.default_rng(0)
    counts = draws.draw_negative_binomial(rng, np.full((50_000, 1), 4.0), np.inf)
    assert counts.var() == pytest.approx(4, rel=0.05)


def test_blocks_cover_all_cells(monkeypatch):
    monkeypatch.setattr("betavi._blocks.SIMULATED_CELLS", 4)
    cells = np.arange(10)
    blocks = [cells[rows] for rows in draws.block_slices(10)]
    assert [len(block) for block in blocks] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), cells)


def test_the_first_value_that_breaks_a_rule_is_named():
    rules = [("n_cells", 5, True, "at least 1"), ("share", 2, False, "between 0 and 1")]
    draws.check_rules(rules[:1])
    with pytest.raises(ValueError, match="`share` must be between 0 and 1, not 2"):
        draws.check_rules(rules)
