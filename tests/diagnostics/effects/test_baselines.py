"""Baselines on numbers made by hand, and on data that follow their assumptions."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.diagnostics.effects.baselines import (
    COMBINATION_BASELINES,
    TARGET,
    Screen,
    additive,
    linear,
    log_profile,
    matching_mean,
    mean_of_perturbed,
    nearest,
    no_change,
    shrunken_additive,
)

AB = dict.fromkeys("AB")


def counts_of(profile):
    """Return counts with this profile, whose last gene makes up the total of ten thousand."""
    counts = np.expm1(np.asarray(profile, dtype=float))
    return np.append(counts, TARGET - counts.sum())


def screen(**profiles):
    """Return a screen of conditions by name: C is the control, and letters are perturbations."""
    parts = {name: dict.fromkeys(name.replace("C", "")) for name in profiles}
    return Screen({name: counts_of(each) for name, each in profiles.items()}, parts, "C")


@pytest.fixture
def small():
    return screen(C=[1.0, 2, 3], A=[2.0, 2, 3], B=[1.0, 1, 3], D=[1.0, 2, 5], AD=[2.0, 2, 5])


def test_profiles_are_log_counts_per_ten_thousand():
    found = log_profile(np.array([[1.0, 3], [0, 10]]))
    np.testing.assert_allclose(np.expm1(found), [[2500, 7500], [0, 10_000]])


def test_baselines_made_by_hand(small):
    expected = {
        no_change: [1, 2, 3],
        mean_of_perturbed: [6 / 4, 7 / 4, 16 / 4],
        # A, B and A with D
        matching_mean: [5 / 3, 5 / 3, 11 / 3],
        additive: [2, 1, 3],
        # A and B are equally far, and the first is chosen
        nearest: [2, 2, 3],
    }
    for baseline, profile in expected.items():
        np.testing.assert_allclose(baseline(small, AB)[:3], profile, err_msg=baseline.__name__)


def test_additive_and_linear_are_exact_on_additive_data():
    rng = np.random.default_rng(0)
    base, changes = rng.uniform(1, 4, 40), dict(zip("ABDEF", rng.normal(size=(5, 40)), strict=True))
    names = ["C", *changes, "AD", "BD", "EF", "AE", "BF"]
    data = screen(**{name: base + sum(changes.get(part, 0) for part in name) for name in names})
    truth = base + changes["A"] + changes["B"]
    np.testing.assert_allclose(additive(data, AB)[:40], truth)
    # the ridge penalty shrinks by a little
    fitted = linear(data, AB)[:40]
    assert np.linalg.norm(fitted - truth) < 0.2 * np.linalg.norm(base - truth)


def test_a_missing_single_perturbation_is_named(small):
    assert small.single("A") == "A"
    with pytest.raises(KeyError, match="E"):
        small.single("E")
    del small.counts["A"]
    with pytest.raises(KeyError, match="A"):
        additive(small, AB)


def test_the_control_is_not_a_perturbed_condition(small):
    assert small.perturbed == ["A", "B", "D", "AD"]


def poisson_screen(rng, effects, total):
    base = rng.normal(size=effects.shape[1])
    names = "ABDEF"[: len(effects)]
    changes = dict(zip(names, effects, strict=True))
    counts = {}
    for name in ("C", *names, "AD"):
        rate = np.exp(base + sum(changes.get(part, 0) for part in name))
        counts[name] = rng.poisson(total * rate / rate.sum()).astype(float)
    rate = np.exp(base + effects[0] + effects[1])
    parts = {name: dict.fromkeys(name.replace("C", "")) for name in counts}
    return Screen(counts, parts, "C"), log_profile(total * rate / rate.sum())


def test_the_shrunken_sum_is_better_than_the_sum_with_few_counts():
    rng = np.random.default_rng(1)
    effects = rng.normal(size=(3, 300)) * (rng.random((3, 300)) < 0.1)
    few, truth = poisson_screen(rng, effects, total=5000)
    errors = [np.linalg.norm(each(few, AB) - truth) for each in (shrunken_additive, additive)]
    assert errors[0] < 0.8 * errors[1]
    many, truth = poisson_screen(rng, effects, total=1e8)
    change = np.linalg.norm(no_change(many, AB) - truth)
    assert np.linalg.norm(shrunken_additive(many, AB) - truth) < 0.05 * change


@pytest.mark.parametrize("name", COMBINATION_BASELINES)
@pytest.mark.parametrize("total", [50, 5000])
def test_every_baseline_is_finite_with_few_counts(name, total):
    rng = np.random.default_rng(2)
    data, _ = poisson_screen(rng, rng.normal(size=(3, 100)), total)
    found = COMBINATION_BASELINES[name](data, AB)
    assert found.shape == (100,)
    assert np.isfinite(found).all()


def test_doses_of_single_perturbations_are_matched():
    profiles = {
        "A at 0.3": [1.1, 2, 3], "A at 3": [2.0, 2, 3], "B at 1": [1.0, 2.5, 3], "B at 10": [1.0, 3, 3],
        "A+B at 1+1": [1.5, 2.5, 3],
    }  # fmt: skip
    parts = {"C": {}} | {
        name: dict(
            zip(name.split()[0].split("+"), map(float, name.split()[2].split("+")), strict=True)
        )
        for name in profiles
    }
    counts = {name: counts_of(each) for name, each in ({"C": [1.0, 2, 3]} | profiles).items()}
    data, wanted = Screen(counts, parts, "C"), {"B": 5.0, "A": 3.0}
    # 5 is closer to 10 than to 1, on a log scale
    assert data.singles(wanted) == ["A at 3", "B at 10"]
    np.testing.assert_allclose(additive(data, wanted)[:3], [2, 3, 3])
    np.testing.assert_allclose(matching_mean(data, wanted)[:3], [1.5, 2.5, 3])
    np.testing.assert_allclose(nearest(data, wanted)[:3], [1.5, 2.5, 3])
    found, same, other = (
        shrunken_additive(data, {"A": dose, "B": 10.0}) for dose in (3.5, 3.0, 0.3)
    )
    np.testing.assert_array_equal(found, same)
    assert not np.array_equal(found, other)
    predicted = linear(data, wanted), linear(data, {"A": 0.3, "B": 1.0})
    assert predicted[0][0] > predicted[1][0]
