"""New cells, comparisons of groups, and queries, of simulations with known truth."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from betavi import JointVI
from betavi._mudata import assembled
from betavi.datasets import simulate_multiome

LIKELIHOODS = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}
QUIET = {"show_progress": False}


@pytest.fixture(scope="module")
def everyone():
    return simulate_multiome(n_cells=1300, n_batches=2, seed=3)


@pytest.fixture(scope="module")
def cells(everyone):
    return everyone[:1000].copy()


@pytest.fixture(scope="module")
def model(cells):
    """Learned from all cells of batch 0, and from those of batch 1 without their proteins."""
    proteins = cells["adt"][(cells.obs["batch"] == "batch_0")[cells.obsmap["adt"] > 0].to_numpy()]
    mosaic = assembled({**cells.mod, "adt": proteins.copy()})
    mosaic.obs = mosaic.obs.join(cells.obs)
    JointVI.setup_mudata(mosaic, LIKELIHOODS, batch_key="batch")
    fitted = JointVI(mosaic, n_latent=6, n_hidden=64)
    fitted.train(40, enable_progress_bar=False, plan_kwargs={"one_cycle": 1e-2})
    return fitted


@pytest.mark.slow
def test_generated_cells_have_every_assay_and_are_like_the_measured(model, cells):
    new = model.generate(1000, seed=0, **QUIET)
    assert list(new.mod) == list(cells.mod)
    assert new.obsm["z"].shape == (1000, 6)
    for name, part in new.mod.items():
        assert list(part.var_names) == list(cells[name].var_names)
        assert part.X.min() >= 0
        mine, real = (np.log1p(np.asarray(x.mean(axis=0)).ravel()) for x in (part.X, cells[name].X))
        assert np.corrcoef(mine, real)[0, 1] > (0.9 if name != "atac" else 0.8)
    # paired: types that differ in RNA differ in protein
    rna, adt = (np.log1p(new[name].X.toarray()) for name in ("rna", "adt"))
    shuffled = np.random.default_rng(0).permutation(len(adt))
    assert _strongest(rna, adt) > 2 * _strongest(rna, adt[shuffled])


def _strongest(one, other):
    both = np.corrcoef(one.T, other.T)[: one.shape[1], one.shape[1] :]
    return np.nanmean(np.nanmax(np.abs(both), axis=0))


def test_generated_cells_repeat_and_come_from_the_batch_asked_for(model):
    before = torch.get_rng_state()
    first, second = (model.generate(20, batch="batch_1", seed=1, **QUIET) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert set(first.obs["batch"]) == {"batch_1"}
    for name in first.mod:
        np.testing.assert_array_equal(first[name].X.toarray(), second[name].X.toarray())
    with pytest.raises(ValueError, match="no batch 'batch_9'"):
        model.generate(5, batch="batch_9", **QUIET)
    with pytest.raises(ValueError, match="`n_cells` must be"):
        model.generate(0, **QUIET)


@pytest.mark.parametrize("name", ["rna", "adt", "atac"])
def test_features_that_differ_are_found(model, name):
    counts = model.adata[name]
    types = model.adata.obs["cell_type"].loc[counts.obs_names]
    found = model.differential_expression(
        modality=name, groupby="cell_type", group1="type_0", group2="type_1", silent=True
    )
    assert sorted(found.index) == sorted(counts.var_names)
    means = [np.asarray(counts[types == t].X.mean(axis=0)).ravel() for t in ("type_0", "type_1")]
    raw = dict(
        zip(counts.var_names, np.log2(means[0] + 0.1) - np.log2(means[1] + 0.1), strict=True)
    )
    effects = [raw[feature] for feature in found.index]
    assert np.corrcoef(found["lfc_median"], effects)[0, 1] > 0.7
    order = found.index.map(list(counts.var_names).index)
    np.testing.assert_allclose(found["raw_mean1"], means[0][order], rtol=1e-5)


def test_what_cannot_be_compared(model):
    columns = list(model.adata.obs)
    with pytest.raises(ValueError, match=r"Pass `groupby`, .* or `idx1`"):
        model.differential_expression()
    with pytest.raises(KeyError, match="has no group 'type_9'"):
        model.differential_expression(groupby="cell_type", group1="type_9")
    with pytest.raises(KeyError, match=r"obs\['cell_typ'\]"):
        model.differential_expression(groupby="cell_typ")
    with pytest.raises(
        ValueError, match="modality 'adt' was not measured in any cell of the group 'batch_1'"
    ):
        model.differential_expression(modality="adt", groupby="batch", group1="batch_1")
    assert list(model.adata.obs) == columns


def test_a_batch_without_an_assay_is_decoded_as_one_that_has_it(model, cells):
    """Its own code has weights that no cell of it ever trained."""
    elsewhere = np.flatnonzero((model.adata.obs["batch"] == "batch_1").to_numpy())
    found = model.translate("rna", "adt", indices=elsewhere, scale="log1p", **QUIET)
    mine = cells[elsewhere]
    truth = np.log1p(mine["adt"].X.toarray())
    r = [np.corrcoef(x, y)[0, 1] for x, y in zip(found.X.T, truth.T, strict=True)]
    assert np.mean(r) > 0.5
    assert abs(found.X.mean() - truth.mean()) < 0.3


def test_a_query_that_lacks_an_assay_is_mapped(model, everyone):
    query = everyone[1000:].copy()
    query.obs["batch"] = "new"
    truth = np.log1p(query["adt"].X.toarray())
    rna = assembled({"rna": query["rna"][:, ::-1].copy()})
    rna.obs["batch"] = "new"
    before = rna.copy()
    fitted = JointVI.prepare_query_mudata(rna, model)
    assert list(rna.mod) == list(before.mod)
    assert {name: part.shape for name, part in fitted.mod.items()} == {
        "rna": (300, 200), "adt": (0, 15), "atac": (0, 300)
    }  # fmt: skip
    with warnings.catch_warnings():
        # nothing is said of what the query is known to lack
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=FutureWarning)
        mapped = JointVI.load_query_data(fitted, model)
    mapped.train(5, enable_progress_bar=False)
    for name, value in model.module.decoders["adt"].state_dict().items():
        mine = mapped.module.decoders["adt"].state_dict()[name]
        torch.testing.assert_close(mine[:, : value.shape[1]] if value.ndim > 1 else mine, value)
    found = mapped.translate("rna", "adt", scale="log1p", **QUIET)
    r = [np.corrcoef(x, y)[0, 1] for x, y in zip(found.X.T, truth.T, strict=True)]
    assert np.mean(r) > 0.5


def test_cells_without_the_first_assay_are_read_by_a_saved_model(model, everyone, tmp_path):
    model.save(tmp_path / "saved")
    some = everyone[1000:].copy()
    proteins = assembled({"adt": some["adt"].copy()})
    proteins.obs["batch"] = "batch_0"
    proteins.obs["cell_type"] = some.obs["cell_type"]
    fitted = JointVI.prepare_query_mudata(proteins, str(tmp_path / "saved"))
    loaded = JointVI.load(tmp_path / "saved", adata=fitted)
    here = loaded.get_latent_representation()
    np.testing.assert_allclose(here, model.get_latent_representation(fitted), rtol=1e-4, atol=1e-4)
    expressed = loaded.get_normalized_expression(library_size=1e4)
    np.testing.assert_allclose(expressed.sum(axis=1), 1e4, rtol=1e-3)


def test_queries_that_do_not_fit(model):
    query = simulate_multiome(n_cells=50, n_batches=1, n_proteins=0, n_peaks=0)
    unknown = assembled({"spliced": query["rna"].copy()})
    with pytest.raises(ValueError, match="share no modality"):
        JointVI.prepare_query_mudata(unknown, model)
    few = assembled({"rna": query["rna"][:, :-3].copy()})
    with pytest.warns(UserWarning, match="3 of the 200 features of the modality 'rna' are missing"):
        assert JointVI.prepare_query_mudata(few, model)["rna"].n_vars == 200
    renamed = query["rna"].copy()
    renamed.var_names = [f"other_{number}" for number in range(200)]
    with pytest.raises(ValueError, match="none of the reference's features"):
        JointVI.prepare_query_mudata(assembled({"rna": renamed}), model)


def test_modalities_that_pytorch_cannot_name_are_refused():
    mdata = simulate_multiome(n_cells=50, n_proteins=0, n_peaks=0)
    for name in ("rna.spliced", "keys"):
        other = assembled({name: mdata["rna"].copy()})
        with pytest.raises(ValueError, match="Rename the modality"):
            JointVI.setup_mudata(other, {name: "zinb"})


def test_objects_that_the_model_would_misread_are_refused(model, everyone):
    other = assembled({name: part.copy() for name, part in everyone.mod.items()})
    reordered = assembled({**other.mod, "rna": everyone["rna"][:, ::-1].copy()})
    lacking = assembled({"rna": everyone["rna"].copy()})
    for mdata in (other, reordered, lacking):
        mdata.obs = mdata.obs.join(everyone.obs)
    with pytest.raises(ValueError, match=r"200 features of mdata\['rna'\].*order differs"):
        model.get_latent_representation(reordered)
    with pytest.raises(KeyError, match="lacks the modality 'adt' of the model"):
        model.get_latent_representation(lacking)
    other.obs["batch"] = "unseen"
    before = list(other.obs), list(other.uns)
    with pytest.raises(ValueError, match=r"not trained on: 'unseen'.*JointVI.load_query_data"):
        model.translate("rna", "adt", other, **QUIET)
    assert (list(other.obs), list(other.uns)) == before


def test_features_in_another_order_are_no_query(model, everyone):
    reordered = assembled({**everyone.mod, "rna": everyone["rna"][:, ::-1].copy()})
    reordered.obs = reordered.obs.join(everyone.obs)
    with pytest.raises(ValueError, match=r"mdata\['rna'\].*order differs"):
        JointVI.load_query_data(reordered, model)


def test_cells_of_a_query_stay_in_order_and_are_not_lost_silently(model, everyone):
    parts = {"adt": everyone["adt"][20:60].copy(), "other": everyone["atac"][:40].copy()}
    query = assembled({"rna": everyone["rna"][30:50].copy(), **parts})
    query.obs["batch"] = "batch_0"
    query.obs["cell_type"] = "type_0"
    query = query[sorted(query.obs_names)].copy()
    with pytest.warns(UserWarning, match="20 cell.s. of the query have none"):
        fitted = JointVI.prepare_query_mudata(query, model)
    has = (query.obsmap["rna"] > 0) | (query.obsmap["adt"] > 0)
    assert list(fitted.obs_names) == list(query.obs_names[has])
    assert model.get_latent_representation(fitted).shape == (40, 6)


@pytest.mark.slow
def test_the_background_of_a_new_batch_starts_at_those_known_and_learns(model, everyone):
    query = everyone[1000:].copy()
    query.obs["batch"] = "new"
    mapped = JointVI.load_query_data(JointVI.prepare_query_mudata(query, model), model)
    known = model.module.likelihoods["adt"].background
    start = mapped.module.likelihoods["adt"].background.detach().clone()
    torch.testing.assert_close(start[:, 2], known.mean(dim=1))
    mapped.train(3, enable_progress_bar=False, plan_kwargs={"weight_decay": 0.0})
    after = mapped.module.likelihoods["adt"].background
    torch.testing.assert_close(after[:, :2], known)
    assert not torch.allclose(after[:, 2], start[:, 2])


def test_queries_have_the_layers_of_the_reference(everyone):
    mdata = everyone[:200].copy()
    mdata["adt"].layers["counts"] = mdata["adt"].X.copy()
    likelihoods = {"rna": "zinb", "adt": "nb_mixture"}
    JointVI.setup_mudata(mdata, likelihoods, layers={"adt": "counts"})
    # what the user does with a dictionary afterwards is no matter of the model's
    likelihoods["rna"] = "bernoulli"
    reference = JointVI(mdata, n_latent=3, n_hidden=16)
    reference.train(1, enable_progress_bar=False)
    assert reference.modalities == ["rna", "adt"]
    assert reference.module.likelihood_names["rna"] == "zinb"
    query = assembled({"rna": everyone["rna"][200:].copy()})
    fitted = JointVI.prepare_query_mudata(query, reference)
    assert list(fitted.mod) == ["rna", "adt"]
    assert reference.translate("rna", "adt", fitted, **QUIET).shape == (1100, 15)


@pytest.mark.slow
def test_an_interval_has_the_uncertainty_of_a_size_that_is_not_known(model, cells):
    """Of RNA from protein, whose own size the protein does not say."""
    found = model.translate("adt", "rna", n_samples=100, scale="log1p", **QUIET)
    truth = np.log1p(cells[found.obs_names]["rna"].X.toarray())
    often = truth.mean(axis=0) > 0.5
    inside = (truth >= found.layers["lower"]) & (truth <= found.layers["upper"])
    assert inside[:, often].mean() > 0.85


def test_detection_is_judged_as_what_it_is(model):
    table = model.predictability("rna", "atac", indices=np.arange(300), **QUIET)
    rates = np.asarray((model.adata["atac"].X > 0).mean(axis=0)).ravel()
    common = table[(rates > 0.2) & (rates < 0.8)]
    # whether there is anything has no interval
    assert common["coverage"].isna().all()
    found = model.translate("rna", "atac", indices=np.arange(300), **QUIET)
    assert (found.layers["lower"] <= found.layers["upper"]).all()
    assert found.layers["upper"].max() <= 1
    assert common["is_predictable"].mean() > 0.5


def test_groups_of_numbers_and_cells_without_a_group_are_compared(model):
    model.adata.obs["cluster"] = np.arange(model.adata.n_obs) % 3
    found = model.differential_expression(modality="adt", groupby="cluster", group1=1, silent=True)
    assert set(found["group1"]) == {1}
    # the groups are alike, so little differs
    assert found["proba_de"].mean() < 0.6
    names = np.array([None, "a", "b"], dtype=object)
    model.adata.obs["some"] = names[model.adata.obs["cluster"]]
    found = model.differential_expression(modality="adt", groupby="some", silent=True)
    assert set(found["group1"]) == {"a", "b"}
    columns = list(model.adata.obs)
    elsewhere = np.flatnonzero((model.adata.obs["batch"] == "batch_1").to_numpy())
    with pytest.raises(ValueError, match="modality 'adt' was not measured in any cell of a group"):
        model.differential_expression(
            modality="adt", idx1=elsewhere[:50], idx2=elsewhere[50:], silent=True
        )
    assert list(model.adata.obs) == columns
