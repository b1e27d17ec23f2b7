"""Decoders: what holds for all of them, and what only the additive decoder promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from betavi.kernels.layers import TransposedLinear
from betavi.nn import DECODERS, Architecture
from tests.contracts import check_decoder
from tests.contracts.decoder import N_LATENT, build, inputs

N_GENES = 7


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_keeps_the_contract(name):
    check_decoder(DECODERS[name])


def log_rates(decoder, z, batch):
    torch.manual_seed(2)
    return TransposedLinear(decoder.n_hidden, N_GENES)(decoder(z, batch))


def interaction(name, first, second):
    """Return the mixed difference of the log rates, where two inputs change by 1."""
    decoder, (z, batch) = build(DECODERS[name]), inputs()
    steps = torch.eye(N_LATENT + 2)
    both = log_rates(decoder, z + steps[first] + steps[second], batch)
    one, other = (log_rates(decoder, z + steps[k], batch) for k in (first, second))
    return (both - one - other + log_rates(decoder, z, batch)).abs().max().item()


def test_in_the_additive_decoder_no_two_dimensions_interact():
    for pair in [(0, 1), (1, 2), (0, N_LATENT)]:
        assert interaction("additive", *pair) < 1e-5
        assert interaction("plain", *pair) > 1e-3


def test_effects_of_covariates_do_not_depend_on_z():
    decoder, (z, batch) = build(DECODERS["additive"]), inputs()
    effect = log_rates(decoder, z, batch * 0 + 1) - log_rates(decoder, z, batch * 0)
    z[:, :N_LATENT] += 3.0
    moved = log_rates(decoder, z, batch * 0 + 1) - log_rates(decoder, z, batch * 0)
    torch.testing.assert_close(moved, effect)


def test_a_program_is_the_change_of_log_rates_where_z_changes_by_one():
    decoder = DECODERS["additive"](N_LATENT, 0, [], Architecture())
    programs = torch.rand(N_LATENT, N_GENES)
    output = TransposedLinear(decoder.n_hidden, N_GENES)
    decoder.start_at(output, programs)
    # far from zero, an amplitude is linear
    z = torch.tensor([[9.0, 0, 0], [10.0, 0, 0], [-9.0, 0, 0]])
    rates = output(decoder(z)).detach()
    np.testing.assert_allclose(rates[1] - rates[0], programs[0], atol=1e-5)
    # and low values start without a program
    expected = output.bias.detach().numpy() + amplitude_at_zero(programs)
    np.testing.assert_allclose(rates[2].numpy(), expected, atol=1e-4)


def amplitude_at_zero(programs):
    """Return the log rates of the dimensions at zero, from the formula."""
    return np.log1p(np.exp(-1.0)) / 2.0 * programs[1:].sum(dim=0).numpy()
