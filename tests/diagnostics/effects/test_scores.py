"""Scores of predictions with known errors."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.diagnostics.effects.scores import N_TOP, perturbation_scores

N_CONDITIONS, N_GENES = 12, 300


@pytest.fixture
def profiles():
    """Return observed profiles, the control, and the centroid of the other conditions."""
    rng = np.random.default_rng(0)
    control = rng.gamma(2, 1, N_GENES)
    observed = control + 0.5 + rng.normal(size=(N_CONDITIONS, N_GENES))
    centroid = (observed.sum(axis=0) - observed) / (N_CONDITIONS - 1)
    return observed, control, centroid


def test_the_truth_has_the_best_scores(profiles):
    observed, control, centroid = profiles
    found = perturbation_scores(observed, observed, control, centroid)
    assert found.shape == (N_CONDITIONS, 7)
    np.testing.assert_allclose(found["l2"], 0)
    np.testing.assert_allclose(found.drop(columns="l2"), 1)


def test_no_change_explains_nothing(profiles):
    observed, control, centroid = profiles
    predicted = np.broadcast_to(control, observed.shape)
    found = perturbation_scores(predicted, observed, control, centroid)
    np.testing.assert_allclose(found["r2"], 0)
    np.testing.assert_allclose(found["l2"], np.linalg.norm(observed - control, axis=1))
    assert (found["signs"] == 0).all()
    assert found[["r_control", "recall"]].isna().all(axis=None)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_rescaled_change_is_worse_and_not_more_correlated(profiles, factor):
    observed, control, centroid = profiles
    exact = perturbation_scores(observed, observed, control, centroid)
    scaled = control + factor * (observed - control)
    found = perturbation_scores(scaled, observed, control, centroid)
    assert (found["l2"] > exact["l2"] + 1).all()
    np.testing.assert_allclose(found["r2"], 1 - (factor - 1) ** 2, atol=1e-9)
    np.testing.assert_allclose(found["r_control"], exact["r_control"])
    assert (found["r_centroid"] < exact["r_centroid"]).all()


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0, 10.0])
def test_rescaling_a_noisy_change_does_not_improve_the_correlations(profiles, factor):
    observed, control, centroid = profiles
    rng = np.random.default_rng(1)
    noise = rng.normal(size=observed.shape)
    # a prediction whose changes from control and centroid are the same
    predicted = control + (observed - control) + noise
    for reference, name in ((control, "r_control"), (centroid, "r_centroid")):
        plain = perturbation_scores(predicted, observed, control, centroid)[name]
        scaled = reference + factor * (predicted - reference)
        found = perturbation_scores(scaled, observed, control, centroid)[name]
        np.testing.assert_allclose(found, plain)


def test_the_mean_of_all_conditions_has_no_correlation_beyond_the_centroid(profiles):
    observed, control, centroid = profiles
    predicted = np.broadcast_to(observed.mean(axis=0), observed.shape)
    found = perturbation_scores(predicted, observed, control + 0.0, centroid)
    assert found["r_control"].mean() > 0.2
    mean = perturbation_scores(centroid, observed, control, centroid)
    assert mean["r_centroid"].isna().all()


def test_correlations_are_those_of_numpy(profiles):
    observed, control, centroid = profiles
    predicted = observed + np.random.default_rng(2).normal(size=observed.shape)
    found = perturbation_scores(predicted, observed, control, centroid)
    for row in range(N_CONDITIONS):
        for name, base in (("r_control", control), ("r_centroid", centroid[row])):
            expected = np.corrcoef(predicted[row] - base, observed[row] - base)[0, 1]
            assert found[name].iloc[row] == pytest.approx(expected)


def test_rank_is_the_share_of_other_conditions_that_are_farther():
    observed = np.array([[0.0, 0], [1, 0], [3, 0]])
    args = observed, np.zeros(2), observed.mean(axis=0)
    assert perturbation_scores(observed, *args)["rank"].tolist() == [1, 1, 1]
    assert perturbation_scores(observed[[2, 1, 0]], *args)["rank"].tolist() == [0, 1, 0]
    # both other profiles are as far away
    between = np.array([[0.0, 0], [1.5, 0], [1.5, 0]])
    assert perturbation_scores(between, *args)["rank"].tolist() == [1, 1, 0.25]
    same = np.zeros((3, 2))
    assert perturbation_scores(same, *(same, *args[1:]))["rank"].tolist() == [0.5, 0.5, 0.5]
    assert np.isnan(perturbation_scores(observed[:1], observed[:1], *args[1:])["rank"].iloc[0])


def test_signs_and_recall_of_significant_genes():
    observed = np.array([[2.0, -1, 0.1, 0.2]])
    predicted = np.array([[1.0, 3, 2, -0.1]])
    significant = np.array([[True, True, False, False]])
    found = perturbation_scores(predicted, observed, np.zeros(4), np.zeros(4), significant)
    assert found["signs"].item() == 0.5
    # the largest predicted changes are those of the second and the third gene
    assert found["recall"].item() == 0.5
    none = perturbation_scores(predicted, observed, np.zeros(4), np.zeros(4), ~(significant | True))
    assert none[["signs", "recall"]].isna().all(axis=None)


def test_the_largest_changes_are_significant_by_default(profiles):
    observed, control, centroid = profiles
    change = np.abs(observed - control)
    largest = change >= np.sort(change, axis=1)[:, [-N_TOP]]
    predicted = observed + np.random.default_rng(3).normal(size=observed.shape)
    default = perturbation_scores(predicted, observed, control, centroid)
    given = perturbation_scores(predicted, observed, control, centroid, largest)
    assert default.equals(given)


def test_shapes_and_names(profiles):
    observed, control, centroid = profiles
    names = [f"P{i}" for i in range(N_CONDITIONS)]
    found = perturbation_scores(observed, observed, control, centroid, conditions=names)
    assert list(found.index) == names
    own = np.broadcast_to(control, observed.shape)
    same = perturbation_scores(observed, observed, own, centroid, conditions=names)
    assert found.equals(same)
    # one condition, without an axis of conditions
    assert perturbation_scores(observed[0], observed[0], control, centroid[0]).shape == (1, 7)


@pytest.mark.parametrize("name", ["predicted", "observed", "control", "centroid"])
def test_values_that_are_not_finite_are_refused(profiles, name):
    values = dict(zip(("observed", "control", "centroid"), profiles, strict=True))
    values["predicted"] = values["observed"]
    values[name] = np.where(np.arange(N_GENES) == 3, np.nan, values[name])
    with pytest.raises(ValueError, match=f"`{name}` has values that are not finite"):
        perturbation_scores(**values)


@pytest.mark.parametrize("name", ["predicted", "control", "centroid", "significant"])
def test_other_shapes_are_refused(profiles, name):
    values = dict(zip(("observed", "control", "centroid"), profiles, strict=True))
    values |= {"predicted": values["observed"], "significant": values["observed"] > 0}
    values[name] = values[name][..., :-1]
    with pytest.raises(ValueError, match=rf"`{name}` has the shape .*299.*`observed` has .*300"):
        perturbation_scores(**values)
