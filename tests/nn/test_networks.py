from __future__ import annotations

import pytest
import torch
from torch import nn

from betavi.nn import Architecture, observed_log_library
from betavi.nn.decoders.plain import PlainDecoder as Decoder
from betavi.nn.library import LatentLibrary
from betavi.nn.networks import Encoder


def parts(module, kind):
    return [part for part in module.modules() if isinstance(part, kind)]


@pytest.mark.parametrize("where", ["both", "encoder", "decoder", "none"])
def test_normalisation_goes_where_it_is_asked_for(where):
    architecture = Architecture(use_batch_norm=where, use_layer_norm=where)
    encoder, decoder = Encoder(4, 2, [], architecture), Decoder(2, 0, [], architecture)
    for kind in (nn.BatchNorm1d, nn.LayerNorm):
        assert bool(parts(encoder, kind)) == (where in ("both", "encoder"))
        assert bool(parts(decoder, kind)) == (where in ("both", "decoder"))


def test_unknown_place_of_normalisation_lists_the_places():
    with pytest.raises(ValueError, match="'both', 'encoder', 'decoder', 'none'"):
        Encoder(4, 2, [], Architecture(use_batch_norm="all"))


def test_depth_width_and_dropout():
    architecture = Architecture(n_hidden=16, n_layers=3, dropout_rate=0.5)
    encoder, decoder = Encoder(4, 2, [], architecture), Decoder(2, 0, [], architecture)
    assert len(parts(encoder.encoder, nn.Linear)) == len(parts(decoder, nn.Linear)) == 3
    assert [part.p for part in parts(encoder, nn.Dropout)] == [0.5] * 3
    assert not parts(decoder, nn.Dropout)
    assert decoder(torch.randn(5, 2)).shape == (5, 16)


@pytest.mark.parametrize(("deep", "widths"), [(True, [3 + 4, 8 + 4]), (False, [3 + 4, 8])])
def test_covariates_are_injected_deeply_or_once(deep, widths):
    architecture = Architecture(n_hidden=8, n_layers=2, deeply_inject_covariates=deep)
    decoder = Decoder(3, 0, [4], architecture)
    assert [layer.in_features for layer in parts(decoder, nn.Linear)] == widths
    codes = torch.zeros(5, 1, dtype=torch.long)
    assert decoder(torch.randn(2, 5, 3), codes).shape == (2, 5, 8)


def test_extra_arguments_reach_the_layers():
    encoder = Encoder(4, 2, [], Architecture(extra_encoder_kwargs={"activation_fn": nn.ELU}))
    decoder = Decoder(2, 0, [], Architecture(extra_decoder_kwargs={"activation_fn": nn.Tanh}))
    assert parts(encoder, nn.ELU)
    assert parts(decoder, nn.Tanh)


def test_variance_activation_is_used():
    architecture = Architecture(var_activation=lambda x: torch.full_like(x, 4.0))
    q = Encoder(4, 2, [], architecture)(torch.randn(5, 4))
    torch.testing.assert_close(q.scale, torch.full((5, 2), 2.0), rtol=1e-4, atol=0)


def test_library_of_an_empty_cell_is_small_and_finite():
    log_library = observed_log_library(torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
    assert torch.isfinite(log_library).all()
    torch.testing.assert_close(log_library.exp(), torch.tensor([[1e-8], [3.0]]))


def test_prior_of_a_latent_library_is_that_of_the_batch():
    means, variances = torch.tensor([[1.0, 2.0]]).numpy(), torch.tensor([[4.0, 9.0]]).numpy()
    library = LatentLibrary(4, [], Architecture(), means, variances)
    prior = library.prior(torch.tensor([[1], [0], [1]]))
    torch.testing.assert_close(prior.loc, torch.tensor([[2.0], [1.0], [2.0]]))
    torch.testing.assert_close(prior.scale, torch.tensor([[3.0], [2.0], [3.0]]))
    posterior = library(torch.randn(500, 4))
    assert posterior.loc.shape == (500, 1)
    # it starts around the mean of the priors
    assert posterior.loc.mean().item() == pytest.approx(1.5, abs=0.5)


@pytest.mark.parametrize("size", [{"n_hidden": 0}, {"n_layers": 0}, {"n_hidden": 12.5}])
def test_sizes_are_whole_numbers(size):
    with pytest.raises(ValueError, match="whole number of at least 1"):
        Architecture(**size)
