"""Digests of weights, by which it is known whether a result may be used again."""

from __future__ import annotations

import copy

import pytest
import torch

from betavi.data import weights_digest


@pytest.fixture
def module():
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def test_copies_have_the_digest_of_the_original_and_context_counts(module):
    assert weights_digest(module) == weights_digest(copy.deepcopy(module))
    assert weights_digest(module, "X", 1.0) == weights_digest(module, "X", 1.0)
    others = {weights_digest(module, *said) for said in ((), ("X",), ("X", 1.0), (1.0, "X"))}
    assert len(others) == 4


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.running_mean", "1.num_batches_tracked"])
def test_every_weight_and_every_buffer_counts(module, name):
    before = weights_digest(module)
    with torch.no_grad():
        module.state_dict()[name].view(-1)[0] += 1
    assert weights_digest(module) != before


def test_types_that_numpy_lacks_are_read(module):
    assert weights_digest(module.to(torch.bfloat16)) != weights_digest(module.to(torch.float32))
