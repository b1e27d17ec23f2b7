"""Very deep cells have bounded influence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from betavi.nn.depth import DepthLimit


@pytest.fixture(params=["dense", "compressed"])
def counts(request):
    counts = torch.tensor([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [400.0, 0.0, 1200.0]])
    return counts.to_sparse_csr() if request.param == "compressed" else counts


def test_without_a_limit_nothing_changes(counts):
    limited, weights = DepthLimit()(counts)
    assert limited is counts
    assert weights.tolist() == [1.0, 1.0, 1.0]


def test_a_deep_cell_is_read_and_weighted_as_one_at_the_limit(counts):
    limit = DepthLimit()
    limit.start_at(160.0)
    limited, weights = limit(counts)
    np.testing.assert_allclose(weights, [1.0, 1.0, 0.1])
    expected = [[1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [40.0, 0.0, 120.0]]
    limited = limited.to_dense() if limited.layout == torch.sparse_csr else limited
    np.testing.assert_allclose(limited, expected)


def test_the_limit_is_saved_with_the_weights():
    limit, other = DepthLimit(), DepthLimit()
    limit.start_at(160.0)
    other.load_state_dict(limit.state_dict())
    assert other.largest_total.item() == 160.0


def test_weights_that_were_saved_without_a_limit_are_loaded():
    limit = DepthLimit()
    limit.load_state_dict({})
    assert limit.largest_total.item() == np.inf
