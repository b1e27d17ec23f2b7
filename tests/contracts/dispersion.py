"""The contract of a dispersion."""

from __future__ import annotations

import torch

from betavi.likelihoods import DispersionSizes
from tests.contracts._state import reloaded

N_HIDDEN, N_GENES, N_CELLS = 8, 12, 30
SIZES = DispersionSizes(n_batch=2, n_labels=3)


def check_dispersion(cls):
    starts_at_one_value_per_gene(cls)
    gradients_reach_every_parameter(cls)
    has_a_column_for_each_batch(cls)
    the_state_survives_saving(cls)


def inputs():
    torch.manual_seed(1)
    cells = torch.arange(N_CELLS)[:, None]
    return torch.randn(3, N_CELLS, N_HIDDEN), cells % SIZES.n_batch, cells % SIZES.n_labels


def starts_at_one_value_per_gene(cls):
    dispersion, start = cls(N_HIDDEN, N_GENES, SIZES), torch.linspace(-1, 2, N_GENES)
    with torch.no_grad():
        dispersion.start_at(start)
        _, batch, label = inputs()
        # decoded dispersions have the start as their bias
        log_theta = dispersion(torch.zeros(3, N_CELLS, N_HIDDEN), batch, label)
    torch.testing.assert_close(log_theta.expand(3, N_CELLS, N_GENES), start.expand(3, N_CELLS, -1))


def gradients_reach_every_parameter(cls):
    dispersion = cls(N_HIDDEN, N_GENES, SIZES)
    (dispersion(*inputs()) * torch.ones(3, N_CELLS, N_GENES)).sum().backward()
    for key, parameter in dispersion.named_parameters():
        assert (parameter.grad != 0).all(), key


def has_a_column_for_each_batch(cls):
    dispersion = cls(N_HIDDEN, N_GENES, SIZES)
    for name in cls.per_batch:
        assert getattr(dispersion, name).shape[1] == SIZES.n_batch, name


def the_state_survives_saving(cls):
    dispersion = cls(N_HIDDEN, N_GENES, SIZES)
    for parameter in dispersion.parameters():
        torch.nn.init.normal_(parameter)
    other = reloaded(dispersion, cls(N_HIDDEN, N_GENES, SIZES))
    torch.testing.assert_close(other(*inputs()), dispersion(*inputs()))
