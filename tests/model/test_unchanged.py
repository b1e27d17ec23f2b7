"""What users do to an object between setup, training and asking, and what they are told."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from mudata import MuData

from betavi import BetaVI, JointVI
from betavi.data.changes import sample_is_whole
from betavi.datasets import pbmc_mosaic, simulate_counts, simulate_multiome
from tests.conftest import BRIEF

QUIET = {"show_progress": False}


def normalise(adata):
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.get_latent_representation(),
        lambda model: model.denoise(**QUIET),
        lambda model: model.diagnose(**QUIET),
        lambda model: model.generate(5, **QUIET),
        lambda model: model.support(**QUIET),
        lambda model: model.rate_distortion(**QUIET),
        lambda model: model.differential_expression(groupby="cell_type", silent=True),
        lambda model: model.train(**BRIEF),
    ],
)
def test_counts_that_were_normalised_are_not_read(model, counts, ask):
    before = model.get_latent_representation()
    kept = counts.X.copy()
    normalise(counts)
    with pytest.raises(
        ValueError, match=r"adata\.X held whole numbers .* now holds non-integer values"
    ):
        ask(model)
    counts.X = kept
    np.testing.assert_array_equal(model.get_latent_representation(), before)


def test_counts_in_a_layer_are_safe_from_what_is_done_to_x(counts):
    BetaVI.setup_anndata(counts, layer="raw")
    model = BetaVI(counts, n_latent=3)
    normalise(counts)
    model.train(**BRIEF)
    normalise(counts)
    assert np.isfinite(model.get_latent_representation()).all()
    counts.layers["raw"] = counts.layers["raw"] * 0.5
    with pytest.raises(ValueError, match=r"adata\.layers\['raw'\] held whole"):
        model.get_latent_representation()


def test_fractions_from_the_start_stay_the_users_choice(counts):
    normalise(counts)
    with pytest.warns(UserWarning, match="not an integer"):
        BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=3, gene_likelihood="normal")
    model.train(**BRIEF)
    assert np.isfinite(model.get_latent_representation()).all()


def test_cells_and_genes_that_were_filtered_in_place(model, counts):
    kept = counts.copy()
    sc.pp.subsample(counts, n_obs=250)
    with pytest.raises(ValueError, match=r"has 250 cells, but had 300 .*adata\.copy\(\)"):
        model.diagnose(**QUIET)
    # the remedy
    assert len(model.diagnose(counts.copy(), **QUIET).dimensions) == 4
    assert model.get_latent_representation(counts.copy()).shape == (250, 4)
    assert model.get_latent_representation(kept).shape == (300, 4)
    BetaVI.setup_anndata(kept)
    other = BetaVI(kept, n_latent=3)
    kept._inplace_subset_var(np.arange(30))
    with pytest.raises(ValueError, match=r"adata\.X has 30 genes, but had 40"):
        other.train(**BRIEF)


def test_a_modality_is_named():
    mdata = simulate_multiome(n_cells=100)
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb"})
    model = JointVI(mdata, n_latent=3)
    model.train(**BRIEF)
    normalise(mdata["adt"])
    with pytest.raises(ValueError, match=r"mdata\['adt'\]\.X held whole"):
        model.get_latent_representation()


def test_whole_numbers_are_told_from_fractions(counts, tmp_path):
    x = counts.X
    assert all(map(sample_is_whole, (x, x.tocsc(), x.toarray(), x.astype(int))))
    assert not any(map(sample_is_whole, (x * 0.5, (x * 0.5).tocsc(), x.toarray() * 0.5)))
    counts.write_h5ad(tmp_path / "x.h5ad")
    assert sample_is_whole(sc.read_h5ad(tmp_path / "x.h5ad", backed="r").X)
    empty = counts[:0].X
    assert sample_is_whole(empty)
    assert sample_is_whole(empty.toarray())


def test_counts_in_a_layer_are_not_written_over(model, counts):
    for words in ({"layer_added": "raw"}, {"std_layer_added": "raw"}):
        with pytest.raises(ValueError, match=r"layers\['raw'\] holds whole numbers"):
            model.denoise(**words, **QUIET)
    assert (counts.layers["raw"] != counts.X).nnz == 0
    # what it wrote itself it writes again, also where all of it is whole by chance
    model.denoise(**QUIET)
    counts.layers["denoised"] = counts.layers["denoised"].round()
    model.denoise(**QUIET)
    assert not sample_is_whole(counts.layers["denoised"])


@pytest.mark.parametrize("argument", ["batch_key", "categorical_covariate_keys"])
def test_categories_without_a_cell_are_refused(counts, argument):
    counts.obs["donor"] = pd.Categorical(counts.obs["donor"], ["a", "b", "c", "z"])
    words = {argument: "donor" if argument == "batch_key" else ["donor"]}
    with pytest.raises(ValueError, match=r"without cells: 'z'.*remove_unused_categories"):
        BetaVI.setup_anndata(counts, **words)
    counts.obs["donor"] = counts.obs["donor"].cat.remove_unused_categories()
    BetaVI.setup_anndata(counts, **words)


def test_genes_that_share_a_name_are_pointed_at(counts):
    counts.var_names = ["gene_0", "gene_0", *counts.var_names[2:]]
    with pytest.warns(UserWarning, match=r"'gene_0'.*var_names_make_unique"):
        BetaVI.setup_anndata(counts)


@pytest.mark.slow
@pytest.mark.parametrize("joint", [False, True])
def test_a_comparison_that_the_batch_takes_away_is_pointed_at(joint):
    # each batch has cells of one condition, and of two types
    if joint:
        data = simulate_multiome(n_cells=200, n_batches=2)
        data.obs["condition"] = data.obs["batch"].astype(str).to_numpy()
        JointVI.setup_mudata(data, {"rna": "nb", "adt": "nb"}, batch_key="batch")
        model, more = JointVI(data, n_latent=3), {"modality": "rna"}
    else:
        data = simulate_counts(n_cells=200, n_genes=20)
        data.obs["condition"] = data.obs["batch"].astype(str).to_numpy()
        BetaVI.setup_anndata(data, batch_key="batch")
        model, more = BetaVI(data, n_latent=3), {"mode": "change"}
    model.train(**BRIEF)
    asked = more | {"silent": True, "batch_correction": True}
    is_first = (data.obs["condition"] == data.obs["condition"].iloc[0]).to_numpy()
    for words in (
        {"groupby": "condition"},
        {"idx1": is_first},
        {"idx1": data.obs_names[is_first], "idx2": data.obs_names[~is_first]},
        {"idx1": f"condition == '{data.obs['condition'].iloc[0]}'"},
    ):
        with pytest.warns(UserWarning, match="No batch has cells of both groups"):
            model.differential_expression(**asked, **words)
    if not joint:
        # by place, as scvi-tools' users may: groups, mode, delta, batch size, statistics, correction
        by_place = ("condition", None, None, None, None, "change", 0.25, None, True, True)
        with pytest.warns(UserWarning, match="No batch has cells of both groups"):
            model.differential_expression(data, *by_place, silent=True)
    # each group of a list is compared by itself
    types = data.obs["cell_type"].unique().tolist()
    data.obs["part"] = np.where(is_first, "first", data.obs["cell_type"].astype(str))
    with pytest.warns(UserWarning, match="No batch has cells of both groups"):
        model.differential_expression(
            **asked, groupby="part", group1=["first", types[0]], group2=types[1]
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="No batch has cells")
        model.differential_expression(**asked, groupby="cell_type")
        model.differential_expression(**asked, groupby="cell_type", group1=types)
        model.differential_expression(**asked | {"batch_correction": False}, groupby="condition")


@pytest.mark.slow
def test_groups_are_named_in_any_way(model, counts):
    one = (counts.obs["cell_type"] == "type_0").to_numpy()
    ways = {
        "mask": one,
        "positions": np.flatnonzero(one),
        "names": counts.obs_names[one],
        "query": "cell_type == 'type_0'",
    }
    found = {
        name: model.differential_expression(idx1=cells, silent=True)["raw_mean1"].sort_index()
        for name, cells in ways.items()
    }
    for name, means in found.items():
        pd.testing.assert_series_equal(means, found["mask"], obj=name)
    # of a group without a cell nothing is asked
    kinds = counts.obs["cell_type"].astype("category").cat.add_categories("none")
    counts.obs["kind"] = kinds
    table = model.differential_expression(groupby="kind", group2="type_0", silent=True)
    assert set(table["group1"]) == {*kinds.unique()} - {"type_0"}


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"idx1": "cluster == 'x'"}, ValueError, "not a valid query of obs"),
        ({"idx1": "cell_type = 'type_0'"}, ValueError, "not a valid query of obs"),
        ({"idx1": "cell_type == 'nothing'"}, ValueError, "selects no cell"),
        ({"idx1": ["cell_x"]}, KeyError, "`idx1` has 1 unknown cell name.*'cell_x'"),
        ({"groupby": "cell_type", "group1": "type_0", "group2": "type_0"}, ValueError, "both"),
        ({"idx1": np.ones(300, dtype=bool)}, ValueError, "`idx1` selects all cells"),
        ({"idx1": "age < 100"}, ValueError, "`idx1` selects all cells"),
        ({"idx1": [1, 2], "idx2": [2, 1]}, ValueError, "both select"),
    ],
)
def test_groups_that_are_none(model, counts, asked, error, words):
    columns = list(counts.obs)
    with pytest.raises(error, match=words):
        model.differential_expression(**asked)
    assert list(counts.obs) == columns


def test_words_that_are_nearly_right(counts):
    BetaVI.setup_anndata(counts)
    with pytest.raises(TypeError, match="Did you mean 'n_latent'"):
        BetaVI(counts, n_latents=5)
    model = BetaVI(counts)
    with pytest.raises(
        TypeError, match=r"no argument 'lr'. Pass this argument as plan_kwargs=\{'lr': \.\.\.\}"
    ):
        model.train(lr=1e-2)
    with pytest.raises(ValueError, match="max_epochs must be a whole number"):
        model.train("10")
    BetaVI(counts).train(np.int64(1), enable_progress_bar=False)
    for ask in (model.diagnose, model.rescue, model.suggest_beta):
        with pytest.raises(RuntimeError, match=r"model\.train\(\)"):
            ask()


def test_a_batch_of_each_modality_is_brought_to_the_mudata():
    """The remedy that the message names, for an object that is put together from two."""
    mosaic = pbmc_mosaic()
    parts = {name: part.copy() for name, part in mosaic.mod.items()}
    for part in parts.values():
        part.obs["run"] = mosaic.obs["batch"].astype(str)[part.obs_names]
    mdata = MuData(parts)
    pair = {"rna": "nb", "adt": "nb_mixture"}
    with pytest.raises(KeyError) as caught:
        JointVI.setup_mudata(mdata, pair, batch_key="run")
    remedy = str(caught.value.args[0]).split("modalities, run: ")[1]
    exec(remedy, {"mdata": mdata})
    assert (mdata.obs["run"] == mosaic.obs["batch"].astype(str)[mdata.obs_names]).all()
    JointVI.setup_mudata(mdata, pair, batch_key="run")
    # one that has it names itself, and then the cells that still have none
    del mdata.obs["run"], mdata["adt"].obs["run"]
    with pytest.raises(KeyError) as caught:
        JointVI.setup_mudata(mdata, pair, batch_key="run")
    exec(str(caught.value.args[0]).split("modalities, run: ")[1], {"mdata": mdata})
    with pytest.raises(ValueError, match="has no value for 400 cell"):
        JointVI.setup_mudata(mdata, pair, batch_key="run")
