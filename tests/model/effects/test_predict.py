"""Predicted profiles, beside the truth of simulated screens."""

from __future__ import annotations

import numpy as np
import pytest

from betavi import EffectVI
from betavi.datasets import EffectDistribution
from tests.conftest import BRIEF
from tests.model.effects.screens import (
    covered,
    fitted,
    is_counted,
    registered,
    screen,
    true_change,
    true_profile,
    without,
)

INTERACTING = EffectDistribution(share_interacting=0.3, interaction_sd=0.5)
SCREENS = {
    "additive": ({}, {}, 0.0),
    "interactions": ({"effects": INTERACTING, "n_combinations": 8}, {}, 0.0),
    "replicates": ({"n_replicates": 4, "replicate_sd": 0.2}, {"replicate_key": "replicate"}, 0.2),
}


@pytest.fixture(scope="module")
def additive():
    """A screen, and a model that lacks the first pair."""
    adata = screen()
    pair = next(iter(adata.uns["truth"]["interactions"]))
    return adata, fitted(without(adata, adata.obs["perturbation"] == pair)), pair


@pytest.fixture(scope="module")
def in_contexts():
    """A screen of two cell lines, and a model that lacks P0 in one of them."""
    adata = screen(5000, n_contexts=3, effects=EffectDistribution(context_sd=0.3))
    obs = adata.obs
    has = obs["perturbation"].astype(str).str.split("+").map(lambda parts: "P0" in parts)
    rest = without(adata, has & (obs["context"] == "context_0"))
    return adata, fitted(rest, keys={"context_key": "context"})


@pytest.fixture(scope="module")
def with_doses():
    adata = screen(4000, n_combinations=1, doses=(0.1, 0.3, 1, 3, 10))
    return adata, fitted(adata, keys={"dose_key": "dose"})


@pytest.mark.parametrize("name", SCREENS)
def test_intervals_hold_the_truth_of_measured_and_of_new_conditions(name):
    kwargs, keys, noise_sd = SCREENS[name]
    of_measured, of_new = [], []
    for seed in range(3):
        adata = screen(seed=seed, **kwargs)
        pairs = list(adata.uns["truth"]["interactions"])
        new = pairs[: len(pairs) // 2]
        model = fitted(without(adata, adata.obs["perturbation"].isin(new)), keys=keys)
        names = [*adata.uns["truth"]["effects"], *pairs]
        found = model.predict(names)
        assert found.obs["is_measured"].tolist() == [each not in new for each in names]
        for row, each in enumerate(names):
            ends = found.layers["lower"][row], found.layers["upper"][row]
            inside = covered(true_profile(adata, each, noise_sd), *ends, is_counted(adata))
            (of_new if each in new else of_measured).append(inside)
    assert 0.82 < np.mean(of_measured) < 0.98
    assert 0.8 < np.mean(of_new) < 0.98


def test_predictions_recover_profiles_and_fold_changes(additive):
    adata, model, pair = additive
    found, genes = model.predict(["control", "P1", pair]), is_counted(adata)
    for row, name in enumerate(["control", "P1", pair]):
        truth = true_profile(adata, name)
        error = np.abs(np.log(found.X[row] / truth))[genes].mean()
        assert error < 0.12
    for row, name in ((1, "P1"), (2, pair)):
        truth, change = true_change(adata, name), found.layers["lfc"][row]
        assert np.corrcoef(truth, change)[0, 1] > 0.97
        clear = (np.abs(truth) > 0.7) & genes
        assert (np.sign(change) == np.sign(truth))[clear].all()
        ends = found.layers["lfc_lower"][row], found.layers["lfc_upper"][row]
        # how many are inside varies between screens, see the next test
        assert (ends[0] <= change).all()
        assert (change <= ends[1]).all()


@pytest.mark.parametrize(("state_sd", "least"), [(0.0, 0.9), (0.5, 0.85)])
def test_fold_changes_are_inside_their_intervals_on_average(state_sd, least):
    """With states, those of few cells shift many genes at once. Single screens then differ."""
    inside = []
    for seed in range(4):
        adata = screen(seed=seed, state_sd=state_sd, n_combinations=2)
        found = fitted(adata).predict(
            [*adata.uns["truth"]["effects"], *adata.uns["truth"]["interactions"]]
        )
        for row, name in enumerate(found.obs_names):
            ends = found.layers["lfc_lower"][row], found.layers["lfc_upper"][row]
            inside.append(covered(true_change(adata, name), *ends, is_counted(adata)))
    assert least < np.mean(inside) <= 1


def test_shapes_and_names(additive):
    adata, model, pair = additive
    found = model.predict(["P1", pair])
    assert found.shape == (2, adata.n_vars)
    assert found.var_names.equals(adata.var_names)
    assert found.obs_names.tolist() == ["P1", pair]
    np.testing.assert_allclose(found.X.sum(axis=1), 1e4, rtol=1e-4)
    layers = found.layers
    # the newest anndata lists X as layer None
    assert set(layers) - {None} == {
        "lower", "upper", "lfc", "lfc_lower", "lfc_upper", "cell_lower", "cell_upper",
    }  # fmt: skip
    for name in ("", "cell_"):
        assert (layers[f"{name}lower"] <= layers[f"{name}upper"]).all()
    assert (layers["lfc_lower"] <= layers["lfc_upper"]).all()
    for level in (0.9, 0.1):
        narrow = model.predict(["P1", pair], level=level)
        for name, values in (("", narrow.X), ("lfc_", narrow.layers["lfc"])):
            assert (narrow.layers[f"{name}lower"] <= values).all()
            assert (values <= narrow.layers[f"{name}upper"]).all()
    # the effect's interval is narrower than that of single cells
    narrow = (layers["upper"] - layers["lower"]).mean()
    assert narrow < 0.5 * (layers["cell_upper"] - layers["cell_lower"]).mean()


def test_the_order_of_names_and_the_control_as_a_part_do_not_matter(additive):
    _, model, pair = additive
    first, second = pair.split("+")
    expected = model.predict(pair)
    for name in (f"{second}+{first}", f"{first} + {second}", f"{first}+control+{second}"):
        found = model.predict(name)
        np.testing.assert_array_equal(found.X, expected.X)
        for layer in expected.layers:
            np.testing.assert_array_equal(found.layers[layer], expected.layers[layer])


def test_the_control_is_predicted_without_a_change(additive):
    adata, model, _ = additive
    found = model.predict("control")
    assert np.abs(found.layers["lfc"]).max() == 0
    assert np.abs(found.layers["lfc_upper"]).max() < 1e-4
    assert found.obs["is_measured"].tolist() == [True]
    ends = found.layers["lower"][0], found.layers["upper"][0]
    assert covered(true_profile(adata, "control"), *ends, is_counted(adata)) > 0.75


def test_intervals_of_new_pairs_widen_with_the_interactions_of_measured_ones():
    widths = {}
    for share in (0.0, 0.5):
        effects = EffectDistribution(share_affected=0.4, share_interacting=share)
        adata = screen(n_combinations=8, effects=effects)
        pair = next(iter(adata.uns["truth"]["interactions"]))
        model = fitted(without(adata, adata.obs["perturbation"] == pair))
        layers = model.predict(pair).layers
        widths[share] = (layers["lfc_upper"] - layers["lfc_lower"]).mean()
    assert widths[0.5] > 1.5 * widths[0.0]


def test_a_level_changes_the_intervals_and_a_seed_the_draws(additive):
    _, model, _ = additive
    one, same, other = (model.predict("P0", seed=seed) for seed in (0, 0, 1))
    for layer in one.layers:
        np.testing.assert_array_equal(one.layers[layer], same.layers[layer])
    assert not np.array_equal(one.layers["lower"], other.layers["lower"])
    np.testing.assert_array_equal(one.X, other.X)
    narrow = model.predict("P0", level=0.5)
    assert (narrow.layers["lower"] >= one.layers["lower"]).all()
    assert (narrow.layers["upper"] <= one.layers["upper"]).all()
    # the draws of one condition do not depend on the others
    several = model.predict(["P1", "P0+P1", "P0"])
    for layer in one.layers:
        np.testing.assert_array_equal(several.layers[layer][2], one.layers[layer][0])


@pytest.mark.parametrize("n_replicates", [2, 6])
def test_random_replicates_of_few_counts_do_not_widen_intervals(n_replicates):
    adata = screen(1500, library_size=100, n_combinations=2)
    adata.obs["random"] = (
        np.random.default_rng(0).integers(n_replicates, size=adata.n_obs).astype(str)
    )
    found = {}
    for key in (None, "random"):
        model = fitted(adata.copy(), keys={"replicate_key": key})
        found[key] = model.predict(["P0", "P0+P2", "P1"]).layers
    noise = model.module.stored_estimate().posterior.noise
    assert np.median(noise) < 0.05
    widths = [(each["lfc_upper"] - each["lfc_lower"]).mean() for each in found.values()]
    assert widths[1] < 1.3 * widths[0]
    last = found["random"]
    assert ((last["lfc_lower"] <= last["lfc"]) & (last["lfc"] <= last["lfc_upper"])).all()


def test_effects_that_never_vary_separately_are_unknown_but_their_sum_is_not():
    adata = screen(2000, effects=EffectDistribution(share_affected=0.4))
    pair = next(iter(adata.uns["truth"]["interactions"]))
    first, second = pair.split("+")
    has = adata.obs["perturbation"].astype(str).str.split("+").map(set)
    alone = has.map(lambda parts: bool(parts & {first, second}) and parts != {first, second})
    rest = without(adata, alone)
    with pytest.warns(UserWarning, match="cannot be separated: 'P[0-9]' .with") as caught:
        model = fitted(rest)
    text = "".join(str(each.message) for each in caught)
    assert f"{first!r} (with {second!r}, {pair!r})" in text
    found = model.predict([first, second, pair])
    assert found.obs["is_measured"].tolist() == [False, False, True]
    width = (found.layers["lfc_upper"] - found.layers["lfc_lower"]).mean(axis=1)
    assert width[:2].min() > 2 * width[2]
    truth, genes = true_change(adata, pair), is_counted(adata)
    assert np.corrcoef(truth[genes], found.layers["lfc"][2][genes])[0, 1] > 0.95
    inside = [
        covered(
            true_change(adata, name),
            found.layers["lfc_lower"][row],
            found.layers["lfc_upper"][row],
            genes,
        )
        for row, name in enumerate((first, second))
    ]
    assert np.mean(inside) > 0.8


def test_an_effect_in_a_batch_of_its_own_is_unknown():
    adata = screen(1500, n_combinations=0)
    adata.obs["batch"] = np.where(adata.obs["perturbation"] == "P0", "b1", "b0")
    with pytest.warns(UserWarning, match=r"cannot be separated: 'P0' \(with 'batch'\)\."):
        model = fitted(adata, keys={"batch_key": "batch"})
    found = model.predict(["P0", "P1"])
    assert found.obs["is_measured"].tolist() == [False, True]
    width = (found.layers["lfc_upper"] - found.layers["lfc_lower"]).mean(axis=1)
    assert width[0] > 2 * width[1]


def test_a_perturbation_of_one_context_is_unknown_in_the_others():
    adata = screen(2000, n_combinations=0, n_contexts=2)
    only = (adata.obs["perturbation"] == "P0") & (adata.obs["context"] == "context_0")
    model = fitted(without(adata, only), keys={"context_key": "context"})
    found = model.predict(["P0", "P1"])
    assert found.obs["is_measured"].tolist() == [False, True, True, True]


def test_conditions_without_training_cells_have_the_prior():
    adata = screen(1500, n_combinations=0)
    single = np.flatnonzero(adata.obs["perturbation"] == "P0")
    adata = without(adata, np.isin(np.arange(adata.n_obs), single[1:]))
    registered(adata)
    model = EffectVI(adata, n_latent=2, n_hidden=8)
    place = int(np.flatnonzero(adata.obs["perturbation"] == "P0")[0])
    others = np.delete(np.arange(adata.n_obs), place)
    split = [others[100:], np.append(others[:100], place), np.array([], dtype=int)]
    with pytest.warns(UserWarning, match="All cells of 'P0' are held out from training"):
        model.train(**BRIEF, datasplitter_kwargs={"external_indexing": split})
    found = model.predict(["P0", "P1"])
    assert found.obs["is_measured"].tolist() == [False, True]
    assert np.abs(found.layers["lfc"][0]).max() < 0.01
    assert (found.layers["lfc_upper"] - found.layers["lfc_lower"])[0].mean() > 0.2


def test_predictions_leave_the_generator_of_torch_alone(additive):
    import torch

    _, model, _ = additive
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    model.predict("P0")
    assert torch.equal(torch.rand(3), expected)


def test_all_contexts_are_predicted_unless_one_is_named(in_contexts):
    adata, model = in_contexts
    found = model.predict(["P1", "P2"])
    contexts = list(adata.obs["context"].cat.categories)
    assert found.obs["context"].tolist() == contexts * 2
    assert found.obs_names[0] == "P1 in context_0"
    one = model.predict("P1", context="context_1")
    np.testing.assert_array_equal(one.X[0], found.X[1])
    two = model.predict("P1", context=np.array(["context_2", "context_1"]))
    np.testing.assert_array_equal(two.X, found.X[[2, 1]])


def test_contexts_have_profiles_of_their_own(in_contexts):
    adata, model = in_contexts
    genes, inside = is_counted(adata), []
    for context in adata.obs["context"].cat.categories:
        found = model.predict(["P1", "P2", "P3"], context=context)
        for row, name in enumerate(found.obs["perturbation"]):
            truth = true_profile(adata, name, context=context)
            assert np.corrcoef(np.log(truth), np.log(found.X[row]))[0, 1] > 0.98
            inside.append(
                covered(truth, found.layers["lower"][row], found.layers["upper"][row], genes)
            )
    assert 0.82 < np.mean(inside) < 0.98


def test_a_context_where_a_perturbation_is_new_takes_it_from_the_others(in_contexts):
    adata, model = in_contexts
    found = model.predict(["P0", "P1"], context="context_0")
    assert found.obs["is_measured"].tolist() == [False, True]
    assert model.predict("P0", context="context_1").obs["is_measured"].tolist() == [True]
    truth = true_change(adata, "P0", context="context_0")
    assert np.corrcoef(truth, found.layers["lfc"][0])[0, 1] > 0.8
    width = found.layers["lfc_upper"] - found.layers["lfc_lower"]
    changed = adata.uns["truth"]["effects"]["P0"].to_numpy() != 0
    measured = model.predict("P0", context="context_1").layers
    assert (
        width[0, changed].mean()
        > (measured["lfc_upper"] - measured["lfc_lower"])[0, changed].mean()
    )


def test_doses_between_measured_ones(with_doses):
    adata, model = with_doses
    genes, inside = is_counted(adata), []
    singles = list(adata.uns["truth"]["effects"])
    for dose in (0.2, 1.0, 5.0, 10.0):
        found = model.predict(singles, dose=dose)
        for row, name in enumerate(singles):
            truth = true_change(adata, name, dose=dose)
            ends = found.layers["lfc_lower"][row], found.layers["lfc_upper"][row]
            inside.append(covered(truth, *ends, genes))
    assert 0.8 < np.mean(inside) < 0.99
    low, high = (np.abs(model.predict("P1", dose=dose).layers["lfc"]).mean() for dose in (0.1, 10))
    assert low < high


def test_doses_outside_need_permission(with_doses):
    _, model = with_doses
    for dose in (0.01, 50.0):
        with pytest.raises(
            ValueError, match=r"outside the measured doses, 0\.1 to 10.*extrapolate=True"
        ):
            model.predict("P0", dose=dose)
    far = model.predict("P0", dose=1e6, extrapolate=True).layers["lfc"]
    full = model.predict("P0", dose=10.0).layers["lfc"]
    assert np.abs(far).mean() >= np.abs(full).mean()
    tiny = model.predict("P0", dose=1e-9, extrapolate=True).layers["lfc"]
    assert np.abs(tiny).max() < 0.01
    # measured doses are stored in single precision
    model.predict("P0", dose=0.1)


def test_a_combination_has_one_dose_or_one_for_each_perturbation(with_doses):
    _, model = with_doses
    same, both = model.predict("P0+P1", dose=1.0), model.predict("P0+P1", dose=[1.0, 1.0])
    np.testing.assert_array_equal(same.X, both.X)
    first = model.predict("P0+P1", dose=[10.0, 0.1]).X
    np.testing.assert_allclose(first, model.predict("P1+P0", dose=[0.1, 10.0]).X, rtol=1e-5)
    assert not np.allclose(first, model.predict("P0+P1", dose=[0.1, 10.0]).X)


def test_the_control_has_no_dose(with_doses):
    _, model = with_doses
    assert np.abs(model.predict("control").layers["lfc"]).max() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"perturbation": "P77"}, KeyError, "'P77' was not measured. Available: 'P0'"),
        ({"perturbation": "P0+P77"}, KeyError, "'P77' was not measured"),
        ({"perturbation": "P0+P0"}, ValueError, "names a perturbation twice"),
        ({"perturbation": "P0+"}, ValueError, "has an empty part"),
        ({"perturbation": []}, ValueError, "`perturbation` is empty"),
        ({"perturbation": None}, ValueError, "`perturbation` is empty"),
        ({"perturbation": 3}, TypeError, "`perturbation` must be a name or a list of names, not 3"),
        ({"perturbation": ["P0", 1]}, TypeError, "`perturbation` must be a name or a list"),
        ({"dose": 1.0}, ValueError, "`dose` was passed, but .* without `dose_key`"),
        ({"context": "liver"}, ValueError, "`context` was passed, but .* without `context_key`"),
        ({"level": 1.0}, ValueError, "`level` must be above 0 and below 1, not 1.0"),
        ({"level": None}, ValueError, "`level` must be above 0 and below 1, not None"),
        ({"level": "a"}, TypeError, "`level` must be a number"),
        ({"seed": -1}, ValueError, "`seed` must be a whole number from 0"),
        ({"extrapolate": 2}, TypeError, "`extrapolate` must be True or False"),
        ({"cells": ["nowhere"]}, KeyError, "`cells` has 1 unknown cell name"),
        (
            {"perturbation": ["P0", "P1"], "cells": [0]},
            ValueError,
            "With `cells`, pass one condition",
        ),
    ],
)
def test_what_cannot_be_predicted_is_named(additive, arguments, error, message):
    with pytest.raises(error, match=message):
        additive[1].predict(**{"perturbation": "P0"} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"The model has doses. Pass the dose of 'P0'"),
        ({"dose": 0.0}, "`dose` must be above 0 and finite, not 0.0"),
        ({"dose": float("nan")}, "`dose` must be above 0 and finite, not nan"),
        ({"dose": [1.0, 2.0]}, "`dose` must be one number, or one for each perturbation of 'P0'"),
        ({"dose": "much"}, "`dose` must be one number, .* not 'much'"),
        ({"dose": -1.0, "extrapolate": True}, "`dose` must be above 0"),
    ],
)
def test_doses_that_are_none_are_named(with_doses, arguments, message):
    with pytest.raises(ValueError, match=message):
        with_doses[1].predict("P0", **arguments)


def test_contexts_that_are_unknown_are_named(in_contexts):
    with pytest.raises(KeyError, match=r"no context 'context_9'. Did you mean 'context_"):
        in_contexts[1].predict("P0", context="context_9")
    with pytest.raises(ValueError, match="`context` is empty"):
        in_contexts[1].predict("P0", context=[])
