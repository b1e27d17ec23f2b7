"""scvi-tools' search over arguments chooses by an ELBO that does not depend on β."""

from __future__ import annotations

import pytest

from betavi import BetaVI
from tests.conftest import BRIEF


@pytest.mark.parametrize("beta", [0.1, 20.0])
def test_the_elbo_that_is_compared_is_at_one(counts, beta):
    BetaVI.setup_anndata(counts, batch_key="batch")
    model = BetaVI(counts, n_latent=4, beta=beta)
    model.train(**BRIEF | {"max_epochs": 4}, check_val_every_n_epoch=1, beta_schedule="constant")
    means = {key: table.iloc[:, 0].astype(float) for key, table in model.history.items()}
    distortion, rate = means["reconstruction_loss_validation"], means["kl_local_validation"]
    assert means["elbo_validation"].tolist() == pytest.approx(list(distortion + rate), rel=1e-5)
    assert means["validation_loss"].tolist() == pytest.approx(
        list(distortion + beta * rate), rel=1e-4
    )
    assert (rate > 0.01).any()


@pytest.mark.slow
def test_ray_chooses_beta_and_the_number_of_dimensions(counts, tmp_path):
    for package in ("ray.tune", "hyperopt", "scib_metrics"):
        pytest.importorskip(package, reason=f"{package} is not installed: scvi-tools[autotune]")
    from ray import tune
    from scvi.autotune import run_autotune

    BetaVI.setup_anndata(counts, batch_key="batch")
    choices = {"n_latent": tune.grid_search([2, 6]), "beta": tune.grid_search([1.0, 50.0])}
    found = run_autotune(
        BetaVI, counts, metrics="elbo_validation", mode="min",
        search_space={"model_params": choices, "train_params": {"max_epochs": 20}},
        num_samples=1, scheduler="fifo", searcher="random", seed=0, resources={"cpu": 1},
        logging_dir=str(tmp_path), ignore_reinit_error=True,
    )  # fmt: skip
    table = found.result_grid.get_dataframe()
    assert len(table) == 4
    best = found.result_grid.get_best_result(metric="elbo_validation", mode="min")
    assert best.metrics["elbo_validation"] == table["elbo_validation"].min()
    assert best.config["model_params"]["beta"] == 1.0
