from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from betavi.nn import Architecture, BetaBias, BetaCondition, BetaFiLM, BetaGate, BetaLinear
from betavi.nn.decoders.plain import PlainDecoder as Decoder
from betavi.nn.networks import Encoder


def test_the_dial_rests_at_the_beta_of_the_elbo():
    assert BetaCondition((0.1, 10)).beta == 1
    assert BetaCondition((2, 10)).beta == 2
    assert BetaCondition((0.1, 0.5)).beta == 0.5
    assert BetaCondition(4.0).beta == 4
    assert BetaCondition(np.float32(2)).beta == 2
    assert BetaCondition(0).is_fixed
    assert not BetaCondition([0.1, 10]).is_fixed


@pytest.mark.parametrize(
    "beta", [-1, math.inf, math.nan, "1", None, (0, 1), (1, 1), (3, 1), (1, 2, 3), (1,), (0.1, "a")]
)
def test_what_is_no_beta_is_refused(beta):
    with pytest.raises(ValueError, match="`beta` must be a finite number of at least 0, or a pair"):
        BetaCondition(beta)


def test_a_beta_that_was_not_trained_is_refused():
    with pytest.raises(ValueError, match=r"outside the range of this model, 0\.1 to 10"):
        BetaCondition((0.1, 10)).check(11)
    # but for what logarithms do to the end of a range
    BetaCondition((0.1, 10)).check(math.exp(math.log(10)))


def test_draws_are_log_uniform_spread_evenly_and_put_back():
    beta_condition = BetaCondition((0.1, 10.0))
    with beta_condition.drawing(64, torch.device("cpu")):
        levels = beta_condition.level.flatten().sort().values
        assert beta_condition.weight.shape == (64,)
        torch.testing.assert_close(
            beta_condition.weight.log()[:, None] / math.log(10), beta_condition.level
        )
    assert (beta_condition.drawn, beta_condition.weight) == (None, 1.0)
    # one draw in each of 64 equal parts of the log scale, up to twice the highest
    parts = (levels + 1) / (2 + math.log(2) / math.log(10)) * 64
    assert (parts.floor() == torch.arange(64)).all()
    with BetaCondition(3.0).drawing(64, torch.device("cpu")):
        pass


def test_the_dial_is_put_back_after_a_failure():
    beta_condition = BetaCondition((0.1, 10.0))
    with (
        pytest.raises(RuntimeError),
        beta_condition.at(5.0),
        beta_condition.drawing(3, torch.device("cpu")),
    ):
        raise RuntimeError
    assert (beta_condition.beta, beta_condition.drawn) == (1.0, None)


@pytest.mark.parametrize("part", [BetaGate, BetaFiLM, BetaLinear, BetaBias])
def test_parts_do_nothing_before_training_and_read_beta_after(part):
    beta_condition = BetaCondition((0.1, 10.0))
    made = part(5, 5, beta_condition) if part is BetaLinear else part(5, beta_condition)
    h = () if part is BetaBias else (torch.randn(7, 5),)
    before = made(*h)
    torch.testing.assert_close(
        before, h[0] if part in (BetaGate, BetaFiLM) else torch.zeros_like(before)
    )
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    answers = []
    for beta in (0.2, 5.0):
        with beta_condition.at(beta):
            answers.append(made(*h))
    assert (answers[0] != answers[1]).all()
    with beta_condition.drawing(7, torch.device("cpu")):
        beta_condition.drawn = torch.tensor([0.2] * 3 + [5.0] * 4)[:, None]
        mixed = made(*h)
    torch.testing.assert_close(mixed[:3], answers[0].expand(7, 5)[:3])
    torch.testing.assert_close(mixed[3:], answers[1].expand(7, 5)[3:])


@pytest.mark.parametrize("norm", ["use_batch_norm", "use_layer_norm"])
def test_networks_of_any_normalisation_depend_on_beta(norm):
    other = {"use_batch_norm": "use_layer_norm", "use_layer_norm": "use_batch_norm"}[norm]
    architecture = Architecture(n_hidden=6, n_layers=2, **{norm: "both", other: "none"})
    beta_condition = BetaCondition((0.1, 10.0))
    encoder = Encoder(4, 3, [2], architecture, beta_condition=beta_condition).eval()
    decoder = Decoder(3, 1, [2], architecture, beta_condition).eval()
    for part in (*encoder.modules(), *decoder.modules()):
        if isinstance(part, BetaGate | BetaFiLM | BetaLinear):
            for parameter in part.parameters():
                nn.init.normal_(parameter)
    x, code = torch.randn(5, 4), torch.zeros(5, 1, dtype=torch.long)
    z = torch.randn(2, 5, 4)
    found = {}
    for beta in (0.2, 5.0):
        with beta_condition.at(beta):
            q = encoder(x, code)
            found[beta] = (q.loc, q.scale, decoder(z, code))
    for low, high in zip(*found.values(), strict=True):
        assert not torch.allclose(low, high)
    # what is appended to z is a covariate, and does not turn
    assert decoder.turn.linear.in_features == 3
