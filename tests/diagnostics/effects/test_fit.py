"""Estimated effects against regressions without shrinkage, and on counts without effects."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

from betavi.diagnostics.effects import fit_effects, inflation, normal_equations, sum_groups

N_FEATURES = 200


def screen(rng, changes, total=200_000, sd=0.0):
    """Return Poisson counts with these changes of the log rate, ``(n_groups, n_features)``."""
    base = rng.normal(size=changes.shape[1])
    log_rate = base + changes + sd * rng.normal(size=changes.shape)
    rate = np.exp(log_rate)
    return rng.poisson(total * rate / rate.sum(axis=1, keepdims=True)).astype(float)


def sparse_effects(rng, n_effects, n_features=N_FEATURES, share=0.1, sd=1.0):
    return (
        sd
        * rng.normal(size=(n_effects, n_features))
        * (rng.random((n_effects, n_features)) < share)
    )


def of_pairs(n_singles, pairs, n_replicates=1):
    """Return the design of a control, singles and pairs, and the kinds of its columns."""
    singles = np.vstack([np.zeros(n_singles), np.eye(n_singles), np.zeros((len(pairs), n_singles))])
    for row, pair in enumerate(pairs, start=n_singles + 1):
        singles[row, list(pair)] = 1
    products = (
        np.stack([singles[:, a] * singles[:, b] for a, b in pairs], axis=1) if pairs else None
    )
    columns = [np.ones((len(singles), 1)), singles, *([] if products is None else [products])]
    kinds = np.array([-1, *[0] * n_singles, *[1] * len(pairs)])
    return np.repeat(np.hstack(columns), n_replicates, axis=0), kinds


def fitted(counts, design, kinds, spread=1.0):
    return fit_effects(counts, design, kinds, np.full(counts.shape[1], spread))


def z_scores(found, columns):
    estimate, variance = found.unshrunk(columns)
    return estimate / np.sqrt(variance)


def rates_of(found, counts, design):
    shares = (counts.sum(axis=0) + 0.5) / (counts.sum() + 0.5 * counts.shape[1])
    rate = shares * np.exp(design @ found.mean)
    return rate * (counts.sum(axis=1) / rate.sum(axis=1))[:, None]


# against other estimators


def test_two_groups_have_the_estimate_and_variance_of_their_ratio():
    rng = np.random.default_rng(0)
    counts = screen(rng, np.vstack([np.zeros(N_FEATURES), sparse_effects(rng, 1)]))
    found = fitted(counts, np.array([[1.0, 0], [1, 1]]), np.array([-1, 0]))
    (estimate,), (variance,) = found.unshrunk(np.array([1]))
    ratio, expected = np.log(counts[1] / counts[0]), (1 / counts).sum(axis=0)
    # a constant of the group is common to all features
    difference = (estimate - ratio - np.median(estimate - ratio)) / np.sqrt(expected)
    assert np.abs(difference).max() < 0.05
    np.testing.assert_allclose(variance, expected, rtol=0.05)


def test_each_feature_agrees_with_a_poisson_regression():
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(1)
    design, kinds = of_pairs(2, [(0, 1)], n_replicates=3)
    effects = sparse_effects(rng, 3)
    counts = screen(rng, design[:, 1:] @ effects, total=2_000_000)
    found = fitted(counts, design, kinds)
    rates = rates_of(found, counts, design)
    constant = np.log(rates) - design @ found.mean
    # the prior of the pair's other effects is negligible only beside many counts
    estimate, variance = found.unshrunk(np.array([3]))
    for feature in np.flatnonzero((effects != 0).all(axis=0) | (np.arange(N_FEATURES) < 10)):
        offset = constant[:, feature] + design[:, 1:3] @ found.mean[1:3, feature]
        family = api.families.Poisson()
        model = api.GLM(counts[:, feature], design[:, [0, 3]], family, offset=offset).fit()
        sd = model.bse[1]
        assert estimate[0, feature] == pytest.approx(model.params[1], abs=0.5 * sd)
        assert 0.95 * sd**2 < variance[0, feature] < 4 * sd**2


def test_large_effects_with_many_counts_agree_with_a_regression_on_all_columns():
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(2)
    design, kinds = of_pairs(2, [(0, 1)])
    effects = np.zeros((3, 400))
    # each fourth feature has three large effects
    effects[:, ::4] = rng.choice([-1.0, 1.0], (3, 100)) * rng.uniform(0.7, 1.5, (3, 100))
    counts = screen(rng, design[:, 1:] @ effects, total=20_000_000)
    found = fitted(counts, design, kinds)
    constant = np.log(rates_of(found, counts, design)) - design @ found.mean
    estimate, variance = found.unshrunk(np.array([1, 2, 3]))
    for feature in range(0, 80, 4):
        family = api.families.Poisson()
        model = api.GLM(counts[:, feature], design, family, offset=constant[:, feature]).fit()
        np.testing.assert_allclose(
            estimate[:, feature], model.params[1:], atol=0.1 * model.bse.max()
        )
        np.testing.assert_allclose(variance[:, feature], model.bse[1:] ** 2, rtol=0.05)


def test_rates_of_a_group_sum_to_its_counts_and_effects_are_recovered():
    rng = np.random.default_rng(3)
    design, kinds = of_pairs(4, [(0, 1), (2, 3)])
    effects = sparse_effects(rng, 6)
    counts = screen(rng, design[:, 1:] @ effects, total=5_000_000)
    found = fitted(counts, design, kinds)
    np.testing.assert_allclose(found.mean[1:], effects, atol=0.15)
    sd = np.sqrt(found.unshrunk(np.arange(1, 7))[1])
    z = (found.mean[1:] - effects) / sd
    assert np.sqrt(np.square(z).mean()) < 1.1


def test_covariance_is_that_of_a_dense_inverse():
    rng = np.random.default_rng(4)
    design, kinds = of_pairs(3, [(0, 2)])
    # the last column is empty
    design, kinds = np.hstack([design, np.zeros((len(design), 1))]), np.append(kinds, 0)
    counts = screen(rng, design[:, 1:] @ sparse_effects(rng, 5, 30), total=5000)
    found = fitted(counts, design, kinds)
    contrasts = rng.normal(size=(2, 6))
    covariance = found.covariance(contrasts)
    for feature in range(30):
        weighted = found.rows[:, :5].T * found.weights[:, feature]
        precision = weighted @ found.rows[:, :5] + np.diag(found.precision[:5, feature])
        expected = contrasts[:, :5] @ np.linalg.inv(precision) @ contrasts[:, :5].T
        np.testing.assert_allclose(covariance[feature], expected, rtol=1e-8)


# calibration


@pytest.mark.parametrize("pairs", [[], [(0, 1), (1, 2), (3, 4), (5, 6)]])
def test_z_scores_without_effects_are_standard_normal(pairs):
    rng = np.random.default_rng(5)
    design, kinds = of_pairs(8, pairs)
    found = fitted(screen(rng, np.zeros((len(design), N_FEATURES))), design, kinds)
    for kind in set(kinds[1:]):
        # of perturbations in one control, estimates are correlated: fewer values than they seem
        z = z_scores(found, np.flatnonzero(kinds == kind)).ravel()
        assert z.std() == pytest.approx(1, abs=0.06)
        assert stats.kstest(z, "norm").statistic < 0.05


def test_z_scores_of_few_counts_are_not_too_large():
    rng = np.random.default_rng(6)
    design, kinds = of_pairs(8, [])
    counts = screen(rng, np.zeros((9, 1000)), total=5000)
    z = z_scores(fitted(counts, design, kinds), np.arange(1, 9)).ravel()
    assert z.std() == pytest.approx(1, abs=0.1)
    assert (np.abs(z) > 3).mean() < 0.01


@pytest.mark.parametrize("sd", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("pairs", [[], [(0, 1), (1, 2), (3, 4), (5, 6)]])
def test_z_scores_with_replicates_include_their_noise(sd, pairs):
    rng = np.random.default_rng(7)
    design, kinds = of_pairs(8, pairs, n_replicates=4)
    counts = screen(rng, np.zeros((len(design), 400)), sd=sd)
    found = fitted(counts, design, kinds)
    assert found.noise.mean() == pytest.approx(np.expm1(sd**2), rel=0.2, abs=2e-4)
    for kind in set(kinds[1:]):
        z = z_scores(found, np.flatnonzero(kinds == kind)).ravel()
        assert z.std() == pytest.approx(1, abs=0.1)
        assert stats.kstest(z, "norm").statistic < 0.06


def test_the_noise_of_replicates_is_not_taken_from_batches():
    rng = np.random.default_rng(8)
    design, kinds = of_pairs(6, [], n_replicates=2)
    batch = np.tile([0.0, 1.0], 7)[:, None]
    design, kinds = np.hstack([design[:, :1], batch, design[:, 1:]]), np.array([-1, -1, *[0] * 6])
    found = fitted(screen(rng, batch * rng.normal(size=N_FEATURES)), design, kinds)
    assert found.noise.mean() < 1e-3
    assert z_scores(found, np.arange(2, 8)).std() == pytest.approx(1, abs=0.06)


def test_zero_effects_are_shrunk_to_zero_and_large_ones_hardly():
    rng = np.random.default_rng(9)
    design, kinds = of_pairs(6, [])
    effects = np.where(rng.random((6, N_FEATURES)) < 0.05, 2.0, 0.0)
    counts = screen(rng, design[:, 1:] @ effects, total=100_000)
    found = fitted(counts, design, kinds)
    estimate, variance = found.unshrunk(np.arange(1, 7))
    is_null, shrunk = effects == 0, found.mean[1:]
    assert np.abs(shrunk[is_null]).mean() < 0.1 * np.abs(estimate[is_null]).mean()
    precise = ~is_null & (np.sqrt(variance) < 0.1)
    np.testing.assert_allclose(shrunk[precise], estimate[precise], rtol=0.02)


def test_clumped_counts_have_the_same_estimates_and_wider_intervals():
    rng = np.random.default_rng(10)
    design, kinds = of_pairs(3, [])
    counts = screen(rng, design[:, 1:] @ sparse_effects(rng, 3), total=1_000_000)
    columns = np.arange(1, 4)
    plain = fitted(counts, design, kinds).unshrunk(columns)
    clumped = fitted(8 * counts, design, kinds, spread=8.0).unshrunk(columns)
    wide = fitted(counts, design, kinds, spread=8.0).unshrunk(columns)
    sd = np.sqrt(plain[1])
    # other columns are shrunk more with less information
    assert np.abs((wide[0] - plain[0]) / sd).mean() < 0.5
    np.testing.assert_allclose(np.median(clumped[1] / plain[1]), 1, rtol=0.02)
    np.testing.assert_allclose(np.median(wide[1] / plain[1]), 8, rtol=0.02)


def test_cells_of_clumped_counts_have_calibrated_z_scores():
    rng = np.random.default_rng(11)
    codes = np.arange(4000) % 5
    cells = 8 * rng.poisson(rng.gamma(4, 0.25, (4000, 1)) * rng.gamma(2, 0.5, 100))
    sums = sum_groups([(cells, codes)], 5, 100)
    design, kinds = of_pairs(4, [])
    z = z_scores(fit_effects(sums.counts, design, kinds, inflation(sums)), np.arange(1, 5))
    assert z.std() == pytest.approx(1, abs=0.12)
    assert z_scores(fitted(sums.counts, design, kinds), np.arange(1, 5)).std() > 2


# designs and extreme counts


def test_columns_that_are_empty_are_not_estimated():
    design = np.array([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 1]])
    rng = np.random.default_rng(12)
    kinds = np.array([-1, 0, 2, 0])
    counts = screen(rng, np.zeros((3, 50)))
    found = fitted(counts, design, kinds)
    assert found.is_estimated.tolist() == [True, True, False, True]
    assert (found.mean[2] == 0).all()
    assert (found.precision[2] == 0).all()
    np.testing.assert_array_equal(found.prior.kinds, [0, 0])
    without = fitted(counts, design[:, [0, 1, 3]], kinds[[0, 1, 3]])
    np.testing.assert_array_equal(found.mean[[0, 1, 3]], without.mean)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate, variance = found.unshrunk(np.array([2, 1]))
    assert (estimate[0] == 0).all()
    assert np.isinf(variance[0]).all()
    np.testing.assert_array_equal(estimate[1], without.unshrunk(np.array([1]))[0][0])


def test_only_the_sum_of_repeated_columns_is_determined():
    # the second and third perturbation, and their pair, are always together
    design = np.array([[1.0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 1, 1]])
    rng, kinds = np.random.default_rng(13), np.array([-1, 0, 0, 0, 1])
    effects = sparse_effects(rng, 1, share=0.3)
    counts = screen(rng, np.vstack([0 * effects, effects, effects]), total=5_000_000)
    found = fitted(counts, design, kinds)
    np.testing.assert_array_equal(found.undetermined(np.eye(5))[:2], 0)
    rest = found.undetermined(np.eye(5))[2]
    np.testing.assert_array_equal(rest != 0, [False, False, True, True, True])
    total = np.array([[0.0, 0, 1, 1, 1]])
    assert not found.undetermined(total).any()
    np.testing.assert_allclose((total @ found.mean)[0], found.mean[1], atol=0.15)
    sd = np.sqrt(found.covariance(np.vstack([np.eye(5)[1:], total])).diagonal(axis1=1, axis2=2))
    assert np.median(sd[:, 4]) < 1.5 * np.median(sd[:, 0])
    large = np.abs(effects[0]) > 0.5
    assert (sd[large, 1] > 3 * sd[large, 4]).all()


def test_effects_in_a_batch_of_their_own_have_the_width_of_their_prior():
    # the second perturbation has the only cells of a batch
    design = np.array([[1.0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]])
    rng = np.random.default_rng(14)
    effects = np.vstack([np.zeros(400), sparse_effects(rng, 2, 400, 0.3, 0.5)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fitted(screen(rng, effects), design, np.array([-1, -1, 0, 0]))
    rest = found.undetermined(np.eye(4)[2:])
    np.testing.assert_array_equal(rest != 0, [[False] * 4, [False, True, False, True]])
    prior = found.prior.scale_weights[1] @ found.prior.scales**2
    variance = found.covariance(np.eye(4)[3:])[:, 0, 0]
    assert variance.mean() == pytest.approx(prior, rel=0.3)


def test_undetermined_sums_of_several_columns_are_found():
    # both perturbations in one batch, and the controls in the other
    design = np.array([[1.0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]])
    counts = screen(np.random.default_rng(15), np.zeros((3, 20)))
    found = fitted(counts, design, np.array([-1, -1, 0, 0]))
    assert found.undetermined(np.eye(4)).any(axis=1).tolist() == [False, True, True, True]
    assert not found.undetermined(np.array([[0, 0, 1.0, -1]])).any()


def test_counts_of_one_do_not_bias_the_base_of_many_small_groups():
    rng = np.random.default_rng(16)
    design, kinds = of_pairs(60, [])
    counts = screen(rng, np.zeros((61, 2000)), total=500)
    found = fitted(counts, design, kinds)
    expected = rates_of(found, counts, design).sum(axis=0)
    few = counts.sum(axis=0) > 5
    assert np.median(expected[few] / counts.sum(axis=0)[few]) == pytest.approx(1, abs=0.03)


def extreme(rng, name, design, effects):
    counts = screen(rng, design[:, 1:] @ effects)
    if name == "zero in a group":
        counts[2, ::3] = 0
    elif name == "zero everywhere":
        counts[:, ::5] = 0
    elif name == "few cells":
        counts[1] = np.floor(counts[1] / 2000)
    elif name == "empty group":
        counts[1] = 0
    elif name == "one feature has all counts":
        counts[:, 0] = 1e7
    elif name == "huge":
        counts = 1e9 * np.maximum(counts, 1)
    elif name == "one count":
        counts[:] = 0
        counts[0, 0] = 1
    return counts


CASES = ["zero in a group", "zero everywhere", "few cells", "empty group",
         "one feature has all counts", "huge", "one count"]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_extreme_counts_have_finite_estimates(name):
    rng = np.random.default_rng(14)
    design, kinds = of_pairs(4, [(0, 1), (2, 3)], n_replicates=2)
    counts = extreme(rng, name, design, sparse_effects(rng, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fitted(counts, design, kinds)
        estimate, variance = found.unshrunk(np.arange(1, 7))
    for values in (found.mean, found.precision, found.shift, found.noise, estimate, variance):
        assert np.isfinite(values).all()
    assert (variance > 0).all()
    assert np.abs(found.mean[1:]).max() < 15


def test_counts_that_are_not_finite_are_refused():
    counts = np.array([[np.inf, 1.0], [1, 1]])
    with pytest.raises(FloatingPointError, match="not finite"), np.errstate(all="ignore"):
        fitted(counts, np.array([[1.0, 0], [1, 1]]), np.array([-1, 0]))


def test_order_of_groups_and_features_does_not_matter():
    rng = np.random.default_rng(15)
    design, kinds = of_pairs(4, [(0, 1)], n_replicates=2)
    counts = screen(rng, design[:, 1:] @ sparse_effects(rng, 5), sd=0.1)
    found = fitted(counts, design, kinds)
    groups, features = rng.permutation(len(design)), rng.permutation(N_FEATURES)
    other = fitted(counts[groups][:, features], design[groups], kinds)
    np.testing.assert_allclose(other.mean, found.mean[:, features], atol=1e-7)
    np.testing.assert_allclose(other.noise, found.noise[features], atol=1e-9)


@pytest.mark.parametrize("n_values", [1, 300])
def test_blocks_leave_no_seam(monkeypatch, n_values):
    rng = np.random.default_rng(16)
    design, kinds = of_pairs(4, [(0, 1)])
    counts = screen(rng, design[:, 1:] @ sparse_effects(rng, 5, 47))
    found = fitted(counts, design, kinds)
    monkeypatch.setattr(normal_equations, "BLOCK_VALUES", n_values)
    other = fitted(counts, design, kinds)
    np.testing.assert_allclose(other.mean, found.mean, atol=1e-8)
    contrasts = np.eye(6)
    np.testing.assert_allclose(other.covariance(contrasts), found.covariance(contrasts), rtol=1e-6)


def test_a_log_offset_is_a_known_part_of_the_log_rate():
    rng = np.random.default_rng(17)
    design, kinds = of_pairs(3, [])
    known = rng.normal(scale=0.5, size=(4, N_FEATURES))
    counts = screen(rng, known, total=1_000_000)
    shares = np.log(counts.sum(axis=0) / counts.sum())
    found = fit_effects(counts, design, kinds, np.ones(N_FEATURES), known + shares)
    ignored = fitted(counts, design, kinds)
    assert z_scores(found, np.arange(1, 4)).std() == pytest.approx(1, abs=0.1)
    assert z_scores(ignored, np.arange(1, 4)).std() > 5
