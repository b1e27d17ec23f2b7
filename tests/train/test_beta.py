"""Which β is in force, from the first step to the last."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scvi
from scvi.train import SaveCheckpoint
from scvi.train._trainingplans import _compute_kl_weight

from betavi import BetaVI
from betavi.objective import SCHEDULES, cosine, join, scale
from tests.conftest import BRIEF


@pytest.fixture
def build(counts):
    BetaVI.setup_anndata(counts)

    def build(**kwargs):
        scvi.settings.seed = 0
        return BetaVI(counts, n_latent=4, **kwargs)

    return build


def betas(model):
    return model.history["beta"]["beta"].to_numpy(dtype=float)


def rate(model):
    return model.rate_distortion(indices=model.train_indices)["rate"].item()


@pytest.mark.parametrize("max_epochs", [4, 9, 20])
@pytest.mark.parametrize("name", SCHEDULES)
def test_beta_is_exact_after_the_warmup_whatever_the_epochs(build, name, max_epochs):
    model = build(beta=0.1)
    model.train(**BRIEF | {"max_epochs": max_epochs}, beta_schedule=name, warmup=0.5)
    found = betas(model)
    assert len(found) == max_epochs
    # the last step of an epoch comes a step before its end
    warm = (np.arange(max_epochs) + 1) / max_epochs > 0.5 + 0.5 / max_epochs
    assert (found[warm] == 0.1).all()
    assert model.module.trained_beta.item() == pytest.approx(0.1)


def test_the_schedule_counts_steps(build):
    model = build(beta=2.0)
    # 270 cells make 3 minibatches of an epoch, 12 of the run
    model.train(**BRIEF | {"max_epochs": 4}, warmup=1.0)
    np.testing.assert_allclose(betas(model), 2 * np.array([2, 5, 8, 11]) / 12)


def test_a_schedule_of_ones_own(build):
    model = build(beta=2.0)
    mine = join([cosine(1.0), scale(lambda share: share, 3.0)], [0.5])
    model.train(**BRIEF | {"max_epochs": 4}, beta_schedule=mine)
    np.testing.assert_allclose(betas(model), [2 * mine(step / 12) for step in (2, 5, 8, 11)])


@pytest.mark.parametrize(
    "options",
    [
        {"n_epochs_kl_warmup": 3},
        {"n_epochs_kl_warmup": None, "n_steps_kl_warmup": 8},
        {"n_epochs_kl_warmup": None},
        {"n_epochs_kl_warmup": 2, "max_kl_weight": 5.0, "min_kl_weight": 0.5},
        {"max_kl_weight": 0.3, "n_epochs_kl_warmup": 1},
    ],
)
def test_scvi_tools_own_schedule_is_followed(build, options):
    model = build(beta=2.0)
    model.train(**BRIEF | {"max_epochs": 4}, plan_kwargs=options)
    words = {"n_epochs_kl_warmup": 400, "n_steps_kl_warmup": None} | options
    theirs = [_compute_kl_weight(epoch, 3 * epoch + 2, **words) for epoch in range(4)]
    np.testing.assert_allclose(betas(model), 2 * np.array(theirs), rtol=1e-6)


def test_a_warmup_that_does_not_end_is_told(build):
    model = build()
    with pytest.warns(UserWarning, match="ended at 10% of the KL weight"):
        model.train(**BRIEF | {"max_epochs": 4}, plan_kwargs={"n_epochs_kl_warmup": 40})


@pytest.mark.parametrize(
    ("beta", "options", "message"),
    [
        (1.0, {"warmup": 400}, "share of the planned steps"),
        (1.0, {"beta_schedule": "log"}, "'constant', 'linear'"),
        (1.0, {"beta_schedule": lambda share: math.nan}, "returned nan at 0%"),
        (1.0, {"warmup": 0.1, "plan_kwargs": {"max_kl_weight": 2}}, "cannot be combined"),
        (1.0, {"free_bits": -1}, "`free_bits` must be a finite number"),
        (1.0, {"target_rate": 0}, "without information"),
        (1.0, {"target_rate": math.inf}, "`target_rate` must be a finite number"),
        (1.0, {"target_rate": 5.0, "capacity": 5.0}, "Pass only one"),
        ((0.1, 10), {"target_rate": 5.0}, "`target_rate` sets one rate"),
        ((0.1, 10), {"capacity": 5.0}, "`capacity` sets one rate"),
        (1.0, {"plan_kwargs": {"one_cycle": 0.01, "reduce_lr_on_plateau": True}}, "both set"),
        (
            1.0,
            {"plan_kwargs": {"one_cycle": -1}},
            "`one_cycle` must be a learning rate above 0, not -1",
        ),
        (1.0, {"target_rate": 5.0, "warmup": 1.0}, "the warm-up takes 100% of the steps"),
        (1.0, {"target_rate": 5.0, "beta_schedule": lambda share: share}, "takes 100%"),
        (1.0, {"warmup": 0.3, "beta_schedule": lambda share: share}, "Leave `warmup` out"),
        ((0.1, 10), {"capacity": 0.0}, "`capacity` sets one rate"),
    ],
)
def test_contradictions_are_refused_before_training(build, beta, options, message):
    model = build(beta=beta)
    before = model.module.z_encoders["X"].mean.weight.clone()
    with pytest.raises(ValueError, match=message):
        model.train(**BRIEF, **options)
    assert not model.is_trained
    assert (model.module.z_encoders["X"].mean.weight == before).all()


@pytest.mark.parametrize("option", ["free_bits", "target_rate", "capacity"])
def test_an_autoencoder_is_deterministic_to_constrain(build, option):
    with pytest.raises(
        ValueError,
        match=f"`{option}` constrains the rate, but a deterministic autoencoder has no rate",
    ):
        build(latent_distribution="deterministic").train(**BRIEF, **{option: 1.0})


def test_a_run_without_an_end_is_refused(build):
    with pytest.raises(ValueError, match="need the number of epochs"):
        build().train(**BRIEF | {"max_epochs": -1}, max_time="00:00:00:01")


def test_early_stopping_waits_for_the_warmup(build):
    model = build()
    # nothing would ever be good enough
    impatient = {"early_stopping": True, "early_stopping_patience": 1}
    model.train(**BRIEF | {"max_epochs": 10}, **impatient, early_stopping_min_delta=1e9, warmup=0.6)
    # the first look is at the end of the warm-up, in the sixth epoch, and the next one stops
    assert len(betas(model)) == 7


@pytest.mark.parametrize("explicit", [0, 3])
def test_early_stopping_with_explicit_epochs_stops_when_scvi_does(build, counts, explicit):
    model = build()
    scvi.model.SCVI.setup_anndata(counts)
    theirs = scvi.model.SCVI(counts, n_latent=4)
    lengths = []
    for trained in (model, theirs):
        trained.train(
            **BRIEF | {"max_epochs": 30},
            plan_kwargs={"lr": 0.0},
            early_stopping=True,
            early_stopping_warmup_epochs=explicit,
            early_stopping_patience=5,
            # what the first epoch that is looked at has reached is never surpassed
            early_stopping_min_delta=1e9,
        )
        lengths.append(len(trained.history["elbo_train"]))
    assert lengths == [explicit + 6] * 2


@pytest.mark.parametrize(
    ("options", "first"),
    # scvi-tools counts epochs from 0, and is at its weight in the sixth of five and more
    [({"warmup": 0.5}, 4), ({"plan_kwargs": {"n_epochs_kl_warmup": 5}}, 5)],
)
def test_checkpoints_of_the_best_model_wait_for_the_warmup(build, tmp_path, options, first):
    model = build()
    keep = SaveCheckpoint(str(tmp_path), "{epoch}", save_top_k=-1)
    model.train(**BRIEF | {"max_epochs": 10}, callbacks=[keep], **options)
    folders = [path.name for path in tmp_path.iterdir() if path.is_dir()]
    saved = sorted(int(name.removeprefix("epoch=")) for name in folders)
    assert saved == list(range(first, 10))
    assert betas(model)[first] == pytest.approx(1, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("target", [1.0, 6.0])
def test_the_controller_reaches_its_target_and_remembers(build, counts, tmp_path, target):
    model = build()
    model.train(**BRIEF | {"max_epochs": 300}, target_rate=target)
    assert rate(model) == pytest.approx(target, rel=0.05)
    model.save(tmp_path / "model")
    loaded = BetaVI.load(tmp_path / "model", counts)
    steered = loaded.module.controller.beta(otherwise=math.nan)
    assert steered == pytest.approx(betas(model)[-1], rel=0.05)
    loaded.train(**BRIEF | {"max_epochs": 300}, target_rate=target)
    # without another warm-up, in which the rate would get away
    assert loaded.history["beta"]["beta"].iloc[-300] == pytest.approx(steered, rel=0.5)
    assert rate(loaded) == pytest.approx(target, rel=0.05)
    # asked for no rate, the model goes back to the β it was made with
    loaded.train(**BRIEF | {"max_epochs": 1}, warmup=0.0)
    assert loaded.history["beta"]["beta"].iloc[-1] == 1.0


def test_answers_are_of_the_beta_that_training_ended_with(build, tmp_path):
    model = build()
    model.train(**BRIEF, plan_kwargs={"max_kl_weight": 0.3, "n_epochs_kl_warmup": None})
    assert model.rate_distortion([0.3])["beta"].item() == 0.3
    for ask in (model.rate_distortion, lambda betas: model.get_elbo(beta=betas[0])):
        with pytest.raises(ValueError, match=r"trained with one β, 0\.3"):
            ask([1.0])


@pytest.mark.slow
def test_a_steered_model_is_minified_and_loaded(build, tmp_path):
    model = build()
    model.train(**BRIEF | {"max_epochs": 20}, target_rate=2.0)
    posteriors = model.get_latent_representation(return_dist=True)
    model.adata.obsm.update(zip(("X_latent_qzm", "X_latent_qzv"), posteriors, strict=True))
    model.minify_adata()
    model.save(tmp_path / "model", save_anndata=True)
    loaded = BetaVI.load(tmp_path / "model")
    assert loaded.get_normalized_expression().shape == model.adata.shape
    np.testing.assert_array_equal(loaded.get_latent_representation(), posteriors[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "target", "max_epochs"),
    [
        ("pancreas_3696x2000.h5ad", 10.0, 30),
        ("kang_muscat.h5ad", 4.0, 60),
        ("zeisel_1464x1000.h5ad", 15.0, 60),
    ],
)
def test_the_controller_reaches_its_target_on_real_counts(real, file, target, max_epochs):
    # the genes with the highest counts determine the rate, and fewer genes train faster
    adata = real(file)
    totals = np.asarray(adata.X.sum(axis=0)).ravel()
    adata = adata[:, np.sort(totals.argsort()[-1000:])].copy()
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata)
    # some five hundred steps after the warm-up
    model.train(**BRIEF | {"max_epochs": max_epochs}, target_rate=target)
    assert rate(model) == pytest.approx(target, rel=0.05)


@pytest.mark.slow
def test_capacity_is_filled_from_both_sides(build):
    for capacity in (1.0, 5.0):
        model = build(beta=50.0)
        model.train(**BRIEF | {"max_epochs": 150}, capacity=capacity)
        assert rate(model) == pytest.approx(capacity, rel=0.25)
        assert (betas(model) == 50).all()


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["standard_normal", "vamp", "mixture"])
def test_free_bits_keep_a_latent_space_alive_that_beta_would_kill(build, prior):
    rates = {}
    for nats in (0.0, 0.5):
        model = build(beta=100.0, prior=prior, n_components=5)
        model.train(**BRIEF | {"max_epochs": 100}, free_bits=nats)
        rates[nats] = rate(model)
    assert rates[0.0] < 0.3 < 0.6 < rates[0.5]


@pytest.mark.slow
def test_free_bits_work_at_every_beta_of_a_range(build):
    found = {}
    for nats in (0.0, 1.0):
        model = build(beta=(0.1, 30))
        model.train(**BRIEF | {"max_epochs": 150}, free_bits=nats)
        found[nats] = model.rate_distortion([30.0])["rate"].item()
    # half a nat of it is too close to what seeds change
    assert found[1.0] > 2 * found[0.0] + 0.5


def test_a_schedule_of_ones_own_is_waited_for(build):
    impatient = {"early_stopping": True, "early_stopping_patience": 1}
    options = impatient | {"early_stopping_min_delta": 1e9}
    model = build(beta=5.0)
    model.train(**BRIEF | {"max_epochs": 10}, beta_schedule=lambda share: share, **options)
    assert len(betas(model)) == 10
    model = build(beta=5.0)
    model.train(**BRIEF | {"max_epochs": 10}, beta_schedule=lambda s: min(1.0, 2 * s), **options)
    assert (len(betas(model)), betas(model)[-1]) == (6, 5.0)


def test_a_target_out_of_reach_is_told_and_early_stopping_waits_for_it(build):
    model = build()
    with pytest.warns(UserWarning, match="target_rate=300 was requested"):
        model.train(
            **BRIEF | {"max_epochs": 10},
            target_rate=300.0,
            early_stopping=True,
            early_stopping_patience=1,
            early_stopping_min_delta=1e9,
        )
    assert len(betas(model)) == 10


def test_a_warmup_that_does_not_end_leaves_the_last_model(build, tmp_path):
    model = build()
    keep = SaveCheckpoint(str(tmp_path), "{epoch}", load_best_on_end=True)
    with pytest.warns(UserWarning, match="of the KL weight"):
        model.train(
            **BRIEF | {"max_epochs": 3}, callbacks=[keep], plan_kwargs={"max_kl_weight": 1.0}
        )
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["epoch=2"]


def test_a_model_of_many_records_the_geometric_mean(build):
    model = build(beta=(0.1, 10))
    model.train(**BRIEF | {"max_epochs": 3}, warmup=0.5)
    np.testing.assert_allclose(betas(model), 2**0.5 * np.array([4 / 9, 1, 1]), rtol=0.1)
    assert model.module.beta_condition.drawn is None
