from __future__ import annotations

import numpy as np
import pytest

from betavi.datasets import EffectDistribution, expected_profile, simulate_perturbations


def simulate(n_factors=0, **kwargs):
    """Return few cells. Without states, log shares are log rates up to a constant of the cell."""
    return simulate_perturbations(300, 60, 4, n_factors=n_factors, seed=3, **kwargs)


def log_ratio(adata, *condition, base=("control",), **kwargs):
    """Return the centred log ratio of the shares in two conditions."""
    first, second = (np.log(expected_profile(adata, *c, **kwargs)) for c in (condition, base))
    return centred(first - second)


def centred(values):
    values = np.asarray(values)
    return values - values.mean()


def test_it_is_the_mean_over_the_states_of_control_cells():
    adata = simulate(n_factors=3)
    truth, z = adata.uns["truth"], adata.obsm["z"][adata.obs["perturbation"] == "control"]
    rates = np.exp(z @ adata.varm["loadings"].T + adata.var["log_base"].to_numpy())
    rates *= np.exp(truth["effects"]["P2"].to_numpy())
    expected = (rates / rates.sum(axis=1, keepdims=True)).mean(axis=0)
    profile = expected_profile(adata, "P2")
    np.testing.assert_allclose(profile, expected, rtol=1e-12)
    assert list(profile.index) == list(adata.var_names)
    assert profile.sum() == pytest.approx(1)


def test_pairs_are_additive_without_interactions():
    adata = simulate(n_combinations=3)
    for pair in adata.uns["truth"]["interactions"]:
        first, second = (log_ratio(adata, single) for single in pair.split("+"))
        np.testing.assert_allclose(log_ratio(adata, pair), first + second, atol=1e-12)


def test_pairs_differ_from_the_sum_by_their_interaction():
    effects = EffectDistribution(share_affected=0.5, share_interacting=0.4)
    adata = simulate(n_combinations=3, effects=effects)
    for pair, interaction in adata.uns["truth"]["interactions"].items():
        first, second = (log_ratio(adata, single) for single in pair.split("+"))
        rest = log_ratio(adata, pair) - first - second
        np.testing.assert_allclose(rest, centred(interaction), atol=1e-12)
        assert np.abs(rest).max() > 0.3


def test_effects_grow_with_the_dose_and_are_half_at_the_ec50():
    adata = simulate(doses=(0.1, 1, 10))
    for name, (ec50, _) in adata.uns["truth"]["dose_curves"].iterrows():
        effect = centred(adata.uns["truth"]["effects"][name])
        np.testing.assert_allclose(log_ratio(adata, name, ec50), effect / 2, atol=1e-12)
        np.testing.assert_allclose(log_ratio(adata, name, 0), 0, atol=1e-12)
        np.testing.assert_allclose(log_ratio(adata, name, 1e9), effect, atol=1e-6)
        doses = 0, 0.1, 0.5, 1, 5, 10
        sizes = [log_ratio(adata, name, dose) @ effect for dose in doses]
        assert (np.diff(sizes) > 0).all()


def test_both_curves_scale_the_interaction():
    effects = EffectDistribution(share_affected=0.5, share_interacting=1)
    adata = simulate(n_combinations=1, doses=(1, 10), effects=effects)
    truth = adata.uns["truth"]
    (pair,) = truth["interactions"]
    singles = pair.split("+")
    ec50, slope = truth["dose_curves"].loc[singles].to_numpy().T
    scale = np.prod(2.0**slope / (2.0**slope + ec50**slope))
    rest = log_ratio(adata, pair, 2.0) - sum(log_ratio(adata, single, 2.0) for single in singles)
    np.testing.assert_allclose(rest, scale * centred(truth["interactions"][pair]), atol=1e-12)


def test_effects_deviate_in_each_context():
    adata = simulate(n_contexts=2, effects=EffectDistribution(context_sd=0.5))
    truth = adata.uns["truth"]
    for context, deviations in truth["context_deviations"].items():
        effect = centred(truth["effects"]["P1"] + deviations["P1"])
        np.testing.assert_allclose(log_ratio(adata, "P1", context=context), effect, atol=1e-12)
        assert (deviations != 0).equals(truth["effects"] != 0)


def test_effects_are_the_same_in_all_contexts_by_default():
    adata = simulate(n_contexts=2)
    first, second = (log_ratio(adata, "P1", context=f"context_{i}") for i in (0, 1))
    np.testing.assert_allclose(first, second, atol=1e-12)
    shares = [expected_profile(adata, "control", context=f"context_{i}") for i in (0, 1)]
    assert not np.allclose(*shares)
    share = (adata.obs.query("perturbation == 'control'")["context"] == "context_0").mean()
    mixed = share * shares[0] + (1 - share) * shares[1]
    np.testing.assert_allclose(expected_profile(adata, "control"), mixed)


def test_a_condition_may_be_held_out():
    adata = simulate(n_combinations=1, n_factors=2)
    (pair,) = adata.uns["truth"]["interactions"]
    rest = adata[adata.obs["perturbation"] != pair].copy()
    assert expected_profile(rest, pair).equals(expected_profile(adata, pair))


def test_blocks_leave_no_seam(monkeypatch):
    adata = simulate(n_factors=2, n_contexts=2)
    whole = expected_profile(adata, "P0")
    monkeypatch.setattr("betavi._blocks.SIMULATED_CELLS", 7)
    np.testing.assert_allclose(expected_profile(adata, "P0"), whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"perturbation": "P9"}, "`perturbation` is unknown: 'P9'. Did you mean"),
        ({"perturbation": "P0", "dose": 1, "context": "liver"}, "`context` is unknown: 'liver'"),
        ({"perturbation": "P0"}, "`dose` must be a finite number of at least 0, not None"),
        ({"perturbation": "P0", "dose": -1}, "at least 0, not -1"),
    ],
)
def test_unknown_conditions_are_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        expected_profile(simulate(doses=(1,)), **kwargs)


def test_unsuitable_objects_are_refused():
    adata = simulate()
    with pytest.raises(ValueError, match="`dose` must be None"):
        expected_profile(adata, "P0", dose=1)
    with pytest.raises(ValueError, match="no control cells"):
        expected_profile(adata[adata.obs["perturbation"] == "P0"], "P0")
    with pytest.raises(ValueError, match="all simulated genes"):
        expected_profile(adata[:, :10], "P0")
    del adata.uns["truth"]
    with pytest.raises(ValueError, match="simulate_perturbations"):
        expected_profile(adata, "P0")
