from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.likelihoods import LIKELIHOODS
from betavi.nn import PRIORS
from tests.conftest import BRIEF, mostly_slow

QUIET = {"show_progress": False}


def trained(n_factors=3, n_cells=1500, batch_key=None, train=None, **kwargs):
    adata = simulate_counts(
        n_cells=n_cells, n_factors=n_factors, n_types=1, n_batches=1, spread_within_type=1.0
    )
    BetaVI.setup_anndata(adata, batch_key=batch_key)
    model = BetaVI(adata, **kwargs)
    options = {"max_epochs": 60, "train_size": 0.8, "collapse_guard": False}
    model.train(**BRIEF | options | (train or {}))
    return model


@pytest.fixture(scope="module")
def wide():
    return trained(n_latent=10)


@pytest.fixture(scope="module")
def collapsed():
    return trained(n_latent=4, beta=300.0)


@pytest.fixture(scope="module")
def report_of_wide(wide):
    return wide.diagnose(**QUIET)


@pytest.fixture(scope="module")
def report_of_collapsed(collapsed):
    return collapsed.diagnose(**QUIET)


@pytest.mark.slow
def test_as_many_dimensions_are_used_as_there_are_factors(wide, report_of_wide):
    report = report_of_wide
    assert report.verdict == "partial"
    # in counts a factor bends, and may take more than one
    assert 3 <= report.active_dimensions <= 6
    assert report.causes[0].name == "too_many_dimensions"
    assert report.is_held_out
    assert report.n_cells == len(wide.validation_indices)
    used = report.dimensions["status"] == "used"
    for column in ("information", "signal", "sensitivity", "kl"):
        assert report.dimensions[column][used].mean() > report.dimensions[column][~used].max()


@pytest.mark.slow
def test_a_healthy_model_is_called_healthy():
    report = trained(n_latent=3).diagnose(**QUIET)
    assert (report.verdict, report.causes) == ("healthy", [])
    assert report.amortisation_gap < 0.1 * sum(report.explained.values())


@pytest.mark.slow
def test_too_high_a_beta_is_found_and_explained(report_of_collapsed):
    report = report_of_collapsed
    assert report.verdict == "collapsed"
    assert report.causes[0].name == "beta_too_high"
    assert report.beta == 300
    assert report.spectrum.n_factors >= 3
    assert report.explained_share < 0.02


@pytest.mark.slow
def test_healthy_beats_collapsed(report_of_wide, report_of_collapsed):
    healthy, collapsed = report_of_wide, report_of_collapsed
    assert healthy.mutual_information > collapsed.mutual_information + 1
    assert healthy.explained_share > collapsed.explained_share
    assert healthy.active_dimensions > collapsed.active_dimensions


@pytest.mark.slow
def test_the_cells_are_those_asked_for(wide):
    report = wide.diagnose(indices=np.arange(200), **QUIET)
    assert (report.n_cells, report.is_held_out) == (200, False)
    assert "trained on" in str(report)
    other = simulate_counts(n_cells=150, n_factors=3, n_types=1, n_batches=1, seed=3)
    assert wide.diagnose(other, **QUIET).n_cells == 150


@pytest.mark.slow
def test_a_diagnosis_changes_nothing_and_repeats(wide, report_of_wide):
    before = copy.deepcopy(wide.module.state_dict())
    state = torch.get_rng_state()
    again = wide.diagnose(**QUIET)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.dimensions.equals(report_of_wide.dimensions)
    for name, value in wide.module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
def test_a_model_of_many_is_asked_at_a_beta():
    model = trained(n_latent=4, beta=(0.1, 300.0), train={"max_epochs": 100})
    used = [model.diagnose(beta=beta, **QUIET).active_dimensions for beta in (1.0, 300.0)]
    assert used[0] >= 3 > used[1]
    assert model.module.beta_condition.beta == 1.0


@pytest.mark.slow
def test_what_covariates_explain_is_not_a_matter_of_beta():
    adata = simulate_counts(n_cells=1500, n_types=6, n_batches=1, spread_within_type=0.0)
    BetaVI.setup_anndata(adata, batch_key="cell_type")
    model = BetaVI(adata, n_latent=5)
    model.train(**BRIEF | {"max_epochs": 60}, train_size=0.8)
    report = model.diagnose(**QUIET)
    assert report.causes[0].name == "covariates_explain"
    assert report.covariates > 10


@pytest.mark.slow
def test_where_the_rate_is_held_its_capacity_is_the_cause_and_not_beta(tmp_path):
    model = trained(n_latent=4, beta=50.0, train={"capacity": 0.5})
    model.save(tmp_path / "model", save_anndata=True)
    for held in (model, BetaVI.load(tmp_path / "model")):
        report = held.diagnose(**QUIET)
        assert report.causes[0].name == "capacity_too_low"
        assert "kept the rate (KL to the prior) at 0.5 nats" in report.causes[0].evidence
        # neither β nor the encoder is to blame for what a capacity leaves
        assert np.isnan([report.beta, report.amortisation_gap]).all()
        assert report.spectrum.active_at(report.beta) == report.spectrum.n_factors
        assert "β = nan" not in str(report)
    wide_enough = trained(n_latent=3, beta=50.0, train={"capacity": 10.0})
    assert wide_enough.diagnose(**QUIET).active_dimensions == 3


@pytest.mark.slow
def test_a_loaded_model_trusts_its_split_only_of_as_many_cells(wide, tmp_path):
    wide.save(tmp_path / "model", save_anndata=True)
    own = BetaVI.load(tmp_path / "model")
    assert own.diagnose(**QUIET).n_cells == len(wide.validation_indices)
    more = simulate_counts(n_cells=1600, n_factors=3, n_types=1, n_batches=1, seed=3)
    other = BetaVI.load(tmp_path / "model", adata=more)
    assert other.diagnose(**QUIET).n_cells == 1600


@pytest.mark.parametrize(
    "kwargs",
    mostly_slow([{"gene_likelihood": name} for name in LIKELIHOODS], [{"gene_likelihood": "zinb"}])
    + [{"prior": name, "n_components": 5} for name in PRIORS]
    + [{"latent_distribution": "ln"}, {"use_observed_lib_size": False}],
    ids=str,
)
def test_every_model_can_be_diagnosed(counts, kwargs):
    BetaVI.setup_anndata(
        counts, batch_key="batch", labels_key="cell_type", categorical_covariate_keys=["donor"],
        continuous_covariate_keys=["age"],
    )  # fmt: skip
    model = BetaVI(counts, n_latent=4, **kwargs)
    model.train(**BRIEF, train_size=0.6)
    report = model.diagnose(**QUIET)
    numbers = report.dimensions.drop(columns=["status", "kl"])
    assert np.isfinite(numbers).all(axis=None)
    # the KL to a mixture is no sum over dimensions
    is_sum = kwargs.get("prior") in (None, "standard_normal", "independent")
    assert report.dimensions["kl"].notna().all() == is_sum
    assert report.predicted.index.tolist() == ["batch", "donor", "cell_type", "age"]
    assert np.isfinite(report.rate)


def test_what_cannot_be_diagnosed(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    with pytest.raises(RuntimeError, match="not trained"):
        model.diagnose()
    model.train(**BRIEF)
    with pytest.raises(ValueError, match=r"Only 3 cells .* at least 20 are needed"):
        model.diagnose(indices=[1, 2, 3])
    model = BetaVI(counts, latent_distribution="deterministic")
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="no posterior that could collapse"):
        model.diagnose()


@pytest.mark.slow
def test_noise_learned_by_heart_is_no_signal(real):
    """Real counts, of which each gene is shuffled: nothing is left that genes agree on."""
    adata = real("pancreas_3696x2000.h5ad")[:2000].copy()
    totals = np.asarray(adata.X.sum(axis=0)).ravel()
    adata = adata[:, np.sort(totals.argsort()[-500:])].copy()
    adata.X = np.random.default_rng(0).permuted(adata.X.toarray(), axis=0)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=10)
    model.train(**BRIEF | {"max_epochs": 60}, train_size=0.7)
    report = model.diagnose(**QUIET)
    # Burda's threshold calls every dimension active, and the decoder reads them
    assert (report.dimensions["mean_variance"] > 0.01).all()
    assert (report.dimensions["sensitivity"] > 3 * report.dimensions["sensitivity_error"]).all()
    assert report.active_dimensions <= 1
    assert report.spectrum.n_factors == 0
