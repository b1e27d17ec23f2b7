"""Labels of new cells, on simulated and real counts."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest
import scvi
from sklearn.linear_model import LogisticRegression

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome
from betavi.diagnostics import thin
from tests.conftest import BRIEF

QUIET = {"show_progress": False}


def model_of(adata, batch_key=None, **train):
    BetaVI.setup_anndata(adata, batch_key=batch_key)
    model = BetaVI(adata, n_latent=5)
    model.train(**BRIEF | train)
    return model


@pytest.fixture(scope="module")
def parts():
    scvi.settings.seed = 0
    adata = simulate_counts(n_cells=900, n_genes=60, n_types=4, n_batches=2, seed=0)
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
    return adata[:700].copy(), adata[700:].copy()


@pytest.fixture(scope="module")
def model(parts):
    return model_of(parts[0].copy(), "batch", max_epochs=20, train_size=0.8)


def test_new_cells_get_their_label_with_honest_probabilities(model, parts):
    query = parts[1].copy()
    table = model.transfer_labels(query, "cell_type", **QUIET)
    assert table.index.equals(query.obs_names)
    truth = query.obs["cell_type"]
    assert (table["guess"] == truth).mean() > 0.9
    assert abs(table["probability"].mean() - (table["guess"] == truth).mean()) < 0.06
    inside = [name in names for name, names in zip(truth, table["labels"], strict=True)]
    assert np.mean(inside) > 0.87
    assert (table["label"] == "unknown").mean() < 0.15
    assert ((table["label"] == table["guess"]) | (table["label"] == "unknown")).all()
    soft = model.transfer_labels(query, "cell_type", soft=True, **QUIET)
    np.testing.assert_allclose(soft.sum(axis=1), 1)
    assert (soft.idxmax(axis=1) == table["guess"]).all()
    np.testing.assert_allclose(soft.max(axis=1), table["probability"])


def test_a_type_that_the_reference_lacks_is_unknown(parts):
    reference, query = parts[0], parts[1].copy()
    out = "type_3"
    rest = reference[reference.obs["cell_type"] != out].copy()
    model = model_of(rest, "batch")
    table = model.transfer_labels(query, "cell_type", **QUIET)
    is_out = (query.obs["cell_type"] == out).to_numpy()
    is_unknown = (table["label"] == "unknown").to_numpy()
    assert is_unknown[is_out].mean() > 0.9
    assert is_unknown[~is_out].mean() < 0.12
    assert (
        not model.transfer_labels(query, "cell_type", unknown=0.0, **QUIET)["p_value"].notna().any()
    )


def test_a_type_without_a_label_is_unknown_even_if_the_model_was_trained_on_it(parts):
    adata = parts[0].copy()
    is_out = (adata.obs["cell_type"] == "type_3").to_numpy()
    adata.obs.loc[is_out | (np.arange(len(is_out)) % 3 == 0), "cell_type"] = np.nan
    table = model_of(adata, "batch").transfer_labels(None, "cell_type", **QUIET)
    is_unknown = table["label"] == "unknown"
    mine = table.index.isin(adata.obs_names[is_out])
    assert is_unknown[mine].mean() > 0.9
    assert is_unknown[~mine].mean() < 0.12


def test_few_labelled_cells_leave_no_cell_unknown(parts):
    adata = parts[0].copy()
    few = adata.obs.groupby("cell_type", observed=True).head(2).index
    adata.obs["few"] = adata.obs["cell_type"].where(adata.obs_names.isin(few))
    table = model_of(adata, "batch").transfer_labels(parts[1].copy(), "few", **QUIET)
    # the smallest p-value of eight cells is 1/9
    assert table["p_value"].between(0.1, 1).all()
    assert not (table["label"] == "unknown").any()


def test_a_p_value_depends_on_the_cell_and_the_labelled_cells_only(model, parts):
    query = parts[1].copy()
    expected = model.transfer_labels(query, "cell_type", **QUIET)["p_value"]
    some = model.transfer_labels(query, "cell_type", [50, 3], **QUIET)["p_value"]
    np.testing.assert_allclose(some, expected.iloc[[50, 3]])
    other = model_of(parts[0].copy(), "batch", train_size=0.5)
    found = other.transfer_labels(query, "cell_type", **QUIET)["p_value"]
    np.testing.assert_allclose(found, expected)


def test_cells_without_a_label_are_labelled_in_place_of_a_query(parts):
    adata = parts[0].copy()
    truth = adata.obs["cell_type"].copy()
    adata.obs.loc[adata.obs_names[::3], "cell_type"] = np.nan
    model = model_of(adata, train_size=0.8)
    table = model.transfer_labels(None, "cell_type", unknown=0.0, **QUIET)
    assert table.index.equals(adata.obs_names[::3])
    assert (table["guess"] == truth[::3]).mean() > 0.9
    assert adata.obs["cell_type"].isna().sum() == len(table)
    # labels given later are used
    adata.obs["cell_type"] = truth
    with pytest.raises(ValueError, match="All cells of the model's own object have a label"):
        model.transfer_labels(None, "cell_type", **QUIET)


def test_a_batch_that_the_reference_lacks_is_said(model, parts):
    query = parts[1].copy()
    query.obs["batch"] = "elsewhere"
    before = query.obs.copy()
    with pytest.warns(UserWarning, match="not in the reference: 'elsewhere'"):
        table = model.transfer_labels(query, "cell_type", **QUIET)
    assert (table["guess"] == query.obs["cell_type"]).mean() > 0.85
    pd.testing.assert_frame_equal(query.obs[before.columns], before)


def test_what_cannot_be_transferred(model, parts):
    with pytest.raises(KeyError, match=r"no column obs\['celltype'\].*'cell_type'"):
        model.transfer_labels(parts[1].copy(), "celltype")
    with pytest.raises(ValueError, match="`level` must be between 0 and 1"):
        model.transfer_labels(parts[1].copy(), "cell_type", level=1.0)
    with pytest.raises(ValueError, match="`unknown` must be a share"):
        model.transfer_labels(parts[1].copy(), "cell_type", unknown=2.0)
    model.adata.obs["one"] = "same"
    with pytest.raises(ValueError, match=r"has 1 label\(s\) with at least 2 cells"):
        model.transfer_labels(parts[1].copy(), "one")
    del model.adata.obs["one"]


def test_a_joint_model_labels_cells_from_what_they_have():
    mdata = simulate_multiome(n_cells=900, n_genes=40, n_peaks=0, n_proteins=10, seed=1)
    types = (mdata.obs if "cell_type" in mdata.obs else mdata["rna"].obs)["cell_type"].astype(str)
    whole = {name: mdata[name][:600].copy() for name in mdata.mod}
    reference = mudata.MuData(whole)
    reference.obs["kind"] = types[:600]
    JointVI.setup_mudata(reference, {"rna": "zinb", "adt": "nb_mixture"})
    model = JointVI(reference, n_latent=5)
    model.train(**BRIEF | {"max_epochs": 10})
    new = {name: mdata[name][600:].copy() for name in mdata.mod}
    right = {}
    for names in (("rna",), ("adt",), ("rna", "adt")):
        query = mudata.MuData({name: new[name].copy() for name in names})
        if len(names) == 1:
            (lacking,) = set(new) - set(names)
            query = mudata.MuData(
                {names[0]: new[names[0]].copy(), lacking: new[lacking][:50].copy()}
            )
        table = model.transfer_labels(query, "kind", unknown=0.0, **QUIET)
        right[names] = (table["guess"] == types.reindex(table.index))[50:].mean()
    assert min(right.values()) > 0.6
    assert right["rna", "adt"] >= max(right.values()) - 0.02


def test_labels_keep_their_kind_and_unknown_means_no_label(parts):
    adata = parts[0].copy()
    truth = adata.obs["cell_type"].str[-1].astype(int)
    adata.obs["number"] = truth
    adata.obs["word"] = adata.obs["cell_type"].where(np.arange(len(truth)) % 3 > 0, "Unknown")
    adata.obs["share"] = np.linspace(0, 1, len(truth))
    model = model_of(adata, "batch")
    table = model.transfer_labels(parts[1].copy(), "number", unknown=0.0, **QUIET)
    expected = parts[1].obs["cell_type"].str[-1].astype(int)
    assert (table["guess"].astype(int) == expected).mean() > 0.85
    assert isinstance(table["labels"].iloc[0][0], int)
    words = model.transfer_labels(None, "word", unknown=0.0, **QUIET)
    assert len(words) == (adata.obs["word"] == "Unknown").sum()
    assert "Unknown" not in set(words["guess"])
    with pytest.raises(TypeError, match="has fractions, not labels"):
        model.transfer_labels(parts[1].copy(), "share")


def test_whole_number_batches_that_the_reference_lacks(parts):
    reference, query = parts[0].copy(), parts[1].copy()
    for part in (reference, query):
        part.obs["plate"] = np.arange(part.n_obs) % 2
    query.obs["plate"] += 7
    model = model_of(reference, "plate", max_epochs=5)
    with pytest.warns(UserWarning, match="not in the reference: '7', '8'"):
        table = model.transfer_labels(query, "cell_type", unknown=0.0, **QUIET)
    assert (table["guess"] == query.obs["cell_type"]).mean() > 0.85


def test_counts_that_denoise_moved_are_read(parts):
    reference, query = parts[0].copy(), parts[1].copy()
    model = model_of(reference, "batch", max_epochs=5)
    expected = model.transfer_labels(query, "cell_type", soft=True, **QUIET)
    model.denoise(query, layer_added=None, **QUIET)
    query.obs["batch"] = "new"
    with pytest.warns(UserWarning, match="not in the reference"):
        found = model.transfer_labels(query, "cell_type", soft=True, **QUIET)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_cells_without_counts_are_unknown(parts):
    query = parts[1].copy()
    counts = query.X.tolil()
    counts[3] = 0
    query.X = counts.tocsr()
    model = model_of(parts[0].copy(), "batch", max_epochs=5)
    with pytest.warns(UserWarning, match="no counts"):
        table = model.transfer_labels(query, "cell_type", **QUIET)
    assert table["label"].iloc[3] == "unknown"


def joint(lacks, batch_key=None):
    """Return a model whose protein lacks a type, with the types, and new cells."""
    mdata = simulate_multiome(
        n_cells=900, n_genes=40, n_peaks=0, n_proteins=10, n_batches=2, seed=1
    )
    obs = mdata.obs if "cell_type" in mdata.obs else mdata["rna"].obs
    types, batches = (obs[key].astype(str) for key in ("cell_type", "batch"))
    is_known = np.arange(900) < 600
    measured = is_known & ~lacks(types).to_numpy()
    reference = mudata.MuData(
        {"rna": mdata["rna"][is_known].copy(), "adt": mdata["adt"][measured].copy()}
    )
    query = mudata.MuData({name: mdata[name][~is_known].copy() for name in ("rna", "adt")})
    for part in (reference, query):
        part.obs["kind"], part.obs["batch"] = (
            types.reindex(part.obs_names),
            batches.reindex(part.obs_names),
        )
    JointVI.setup_mudata(reference, {"rna": "zinb", "adt": "nb_mixture"}, batch_key=batch_key)
    model = JointVI(reference, n_latent=5)
    model.train(**BRIEF)
    return model, query


@pytest.mark.parametrize("names", [("rna",), ("adt",), ("rna", "adt")])
def test_a_joint_model_finds_unknown_cells_in_what_they_have(names):
    model, query = joint(lambda types: types == "none")
    model.adata.obs["kind"] = model.adata.obs["kind"].replace("type_3", np.nan)
    lacking = {name: query[name][:1].copy() for name in ("rna", "adt") if name not in names}
    new = mudata.MuData({name: query[name].copy() for name in names} | lacking)
    table = model.transfer_labels(new, "kind", **QUIET)
    is_out = (query.obs["kind"].reindex(table.index) == "type_3").to_numpy()
    is_unknown = (table["label"] == "unknown").to_numpy()
    assert is_unknown[~is_out].mean() < 0.12
    assert is_unknown[is_out].mean() > max(0.15, 2 * is_unknown[~is_out].mean())


def test_a_label_that_one_modality_lacks_is_not_ruled_out():
    model, query = joint(lambda types: types == "type_3")
    table = model.transfer_labels(query, "kind", unknown=0.0, **QUIET)
    mine = (query.obs["kind"] == "type_3").to_numpy()
    assert (table["guess"] == query.obs["kind"])[mine].mean() > 0.5


def test_modalities_that_few_labelled_cells_share_are_not_combined():
    model, query = joint(lambda types: types != "type_3")
    model.adata.obs.loc[model.adata.obs["kind"] == "type_3", "kind"] = np.nan
    few = mudata.MuData({"rna": query["rna"][:5].copy(), "adt": query["adt"][5:].copy()})
    with pytest.raises(ValueError, match="only adt, for which the reference has"):
        model.transfer_labels(few, "kind", unknown=0.0, **QUIET)
    with pytest.warns(UserWarning, match="labelled from rna only, not from adt"):
        table = model.transfer_labels(query, "kind", unknown=0.0, **QUIET)
    assert (table["guess"] == query.obs["kind"]).mean() > 0.5


def test_a_joint_query_from_a_batch_that_the_reference_lacks():
    model, query = joint(lambda types: types == "none", "batch")
    query.obs["batch"] = "new"
    with pytest.warns(UserWarning, match="not in the reference: 'new'"):
        table = model.transfer_labels(query, "kind", unknown=0.0, **QUIET)
    assert (table["guess"] == query.obs["kind"]).mean() > 0.6
    assert set(query.obs["batch"]) == {"new"}


@pytest.mark.parametrize(
    ("name", "key", "out", "recall"),
    [
        ("kang_muscat.h5ad", "cluster_id", "B cells", 0.6),
        ("zeisel_1464x1000.h5ad", "cell_type", "interneurons", 0.8),
    ],
)
def test_unknown_cells_of_real_data(real, name, key, out, recall):
    adata = real(name)
    if "group_id" in adata.obs:
        adata = adata[adata.obs["group_id"] == "ctrl"].copy()
    adata.obs["kind"] = adata.obs[key].astype(str)
    is_out, is_new = (adata.obs["kind"] == out).to_numpy(), np.arange(adata.n_obs) % 3 == 0
    model = model_of(adata[~is_new & ~is_out].copy(), max_epochs=1)
    share = lambda query: (  # noqa: E731
        model.transfer_labels(query, "kind", **QUIET)["label"] == "unknown"
    ).mean()
    assert share(adata[is_out].copy()) > recall
    others = adata[is_new & ~is_out].copy()
    assert share(others) < 0.1
    others.X = thin(others.X, 0.5).kept
    assert share(others) < 0.1


@pytest.mark.slow
def test_labels_of_stimulated_cells_are_better_than_those_of_neighbours(real):
    adata = real("kang_muscat.h5ad")
    is_query = (adata.obs["group_id"] == "stim").to_numpy()
    reference, query = adata[~is_query].copy(), adata[is_query].copy()
    for part in (reference, query):
        part.obs["cluster_id"] = part.obs["cluster_id"].astype(str)
    model = model_of(reference, max_epochs=30)
    soft = model.transfer_labels(query, "cluster_id", soft=True, **QUIET)
    truth = query.obs["cluster_id"]
    right = (soft.idxmax(axis=1) == truth).mean()
    latent = model.get_latent_representation(), model.get_latent_representation(query)
    on_latent = LogisticRegression(max_iter=500).fit(latent[0], reference.obs["cluster_id"])
    assert right > 0.89
    assert right > on_latent.score(latent[1], truth)
    assert abs(soft.max(axis=1).mean() - right) < 0.03
