"""Contract test of decoders."""

from __future__ import annotations

import torch

from betavi.data import ImageFormat
from betavi.nn import Architecture, BetaCondition

N_CELLS, N_LATENT = 6, 3


def inputs(n_values=2):
    torch.manual_seed(0)
    z = torch.randn(N_CELLS, N_LATENT + n_values)
    return z, torch.arange(N_CELLS)[:, None] % 3


def build(cls, **kwargs):
    torch.manual_seed(1)
    return cls(N_LATENT, 2, [3], Architecture(n_hidden=16), **of_kind(cls), **kwargs).eval()


def of_kind(cls):
    return {"image": ImageFormat(2, 32, 48)} if cls.of_images else {}


def check_decoder(cls):
    shapes_and_gradients(cls)
    everything_has_an_effect(cls)
    covariates_may_be_absent(cls)
    the_width_does_not_depend_on_the_number_of_batches(cls)
    beta_has_an_effect(cls)


def shapes_and_gradients(cls):
    decoder = build(cls)
    z, batch = inputs()
    hidden = decoder(z, batch)
    assert hidden.shape == (N_CELLS, decoder.n_hidden)
    # several draws of the same cells
    draws = decoder(torch.stack([z, z + 1]), batch)
    torch.testing.assert_close(draws[0], hidden)
    hidden.sum().backward()
    assert all(weight.grad is not None for weight in decoder.parameters())


def everything_has_an_effect(cls):
    decoder = build(cls)
    z, batch = inputs()
    hidden = decoder(z, batch)
    for column in (0, N_LATENT):
        moved = z.clone()
        moved[:, column] += 2
        assert not torch.allclose(decoder(moved, batch), hidden)
    assert not torch.allclose(decoder(z, (batch + 1) % 3), hidden)


def covariates_may_be_absent(cls):
    decoder = cls(N_LATENT, 0, [1], Architecture(), **of_kind(cls))
    z, batch = inputs(0)
    assert decoder(z, torch.zeros_like(batch)).shape == (N_CELLS, decoder.n_hidden)


def the_width_does_not_depend_on_the_number_of_batches(cls):
    """A query may have more batches than its reference."""
    kinds = (cls(N_LATENT, 0, [n], Architecture(), **of_kind(cls)) for n in (1, 2, 50))
    widths = {decoder.n_hidden for decoder in kinds}
    assert len(widths) == 1


def beta_has_an_effect(cls):
    condition = BetaCondition((0.1, 10.0))
    decoder = build(cls, beta_condition=condition)
    z, batch = inputs()
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.add_(0.1)
    condition.beta = 0.1
    low = decoder(z, batch)
    condition.beta = 10.0
    assert not torch.allclose(decoder(z, batch), low)
