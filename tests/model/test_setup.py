"""Bad input: named before training, and the object left as it was."""

from __future__ import annotations

import warnings

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from betavi import BetaVI
from betavi.data import CellManager
from tests.conftest import BRIEF


def snapshot(adata):
    """Everything of an object that a call could have changed."""
    data = adata.X.toarray() if sparse.issparse(adata.X) else np.array(adata.X)
    return (
        data.astype(str).tolist(),
        adata.obs.to_csv(),
        adata.var.to_csv(),
        sorted(adata.obsm),
        sorted(map(str, adata.layers)),
        {key: str(value) for key, value in adata.uns.items()},
        adata.is_view,
    )


def with_value(adata, value, dense):
    x = adata.X.toarray().astype(np.float32)
    x[3, 5] = value
    adata.X = x if dense else sparse.csr_matrix(x)
    return adata


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(
    ("value", "what"),
    [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (-2.0, "negative")],
)
def test_impossible_values_are_named_by_cell_and_gene(counts, value, what, dense):
    adata = with_value(counts, value, dense)
    before = snapshot(adata)
    with pytest.raises(ValueError, match=rf"{what}: .* in cell 'cell_3' \(row 3\), gene 'gene_5'"):
        BetaVI.setup_anndata(adata, batch_key="batch")
    assert snapshot(adata) == before


@pytest.mark.parametrize("dense", [True, False])
def test_fractions_are_named_in_a_warning(counts, dense):
    adata = with_value(counts, 1.5, dense)
    with pytest.warns(UserWarning, match=r"not an integer: 1.5 in cell 'cell_3'"):
        BetaVI.setup_anndata(adata)


@pytest.mark.parametrize("dense", [True, False])
def test_faults_are_found_beyond_the_first_block(counts, monkeypatch, dense):
    monkeypatch.setattr("betavi._blocks.SCANNED_ENTRIES", 2 * counts.n_vars)
    with pytest.raises(ValueError, match=r"cell 'cell_3' \(row 3\), gene 'gene_5'"):
        BetaVI.setup_anndata(with_value(counts, -1.0, dense))


def test_faults_are_found_in_a_file(counts, tmp_path):
    with_value(counts, -1.0, dense=False).write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(ValueError, match="cell 'cell_3'"):
        BetaVI.setup_anndata(backed)


def test_counts_that_are_words_are_refused(counts):
    adata = anndata.AnnData(counts.X.toarray().astype(str), obs=counts.obs)
    with pytest.raises(ValueError, match="not numbers"):
        BetaVI.setup_anndata(adata)


def test_no_counts_at_all(counts):
    with pytest.raises(ValueError, match="layer="):
        BetaVI.setup_anndata(anndata.AnnData(obs=counts.obs, var=counts.var))


def test_a_gene_without_counts_is_named_in_a_warning(counts):
    x = counts.X.tolil()
    x[:, 7] = 0
    counts.X = x.tocsr()
    with pytest.warns(UserWarning, match=r"1 gene.* no counts: 'gene_7'.*filter_genes"):
        BetaVI.setup_anndata(counts)


def with_empty_cell(counts):
    x = counts.X.tolil()
    x[4] = 0
    counts.X = x.tocsr()
    return counts


def test_a_cell_without_counts_is_named(counts):
    adata = with_empty_cell(counts)
    before = snapshot(adata)
    with pytest.raises(ValueError, match=r"'cell_4' \(row 4\).*keep_empty_cells.*filter_cells"):
        BetaVI.setup_anndata(adata)
    assert snapshot(adata) == before


@pytest.mark.parametrize("use_observed_lib_size", [True, False])
def test_a_cell_without_counts_is_kept_when_asked(counts, tmp_path, use_observed_lib_size):
    BetaVI.setup_anndata(with_empty_cell(counts), batch_key="batch", keep_empty_cells=True)
    model = BetaVI(counts, use_observed_lib_size=use_observed_lib_size)
    model.train(**BRIEF)
    assert np.isfinite(model.get_latent_representation()).all()
    assert np.isfinite(model.get_elbo())
    model.save(tmp_path / "model", save_anndata=True)
    assert BetaVI.load(tmp_path / "model").adata.n_obs == counts.n_obs


def test_a_batch_of_one_cell_is_named_and_trains(counts):
    counts.obs["batch"] = np.where(np.arange(counts.n_obs) == 9, "lonely", "crowd")
    with pytest.warns(UserWarning, match="batches with one cell: 'lonely'"):
        BetaVI.setup_anndata(counts, batch_key="batch")
    model = BetaVI(counts, use_observed_lib_size=False)
    model.train(**BRIEF)
    assert np.isfinite(model.get_elbo())


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"layer": "rwa"}, "no layer 'rwa'. Did you mean 'raw'"),
        ({"batch_key": "batches"}, "'batches'.*Did you mean 'batch'"),
        ({"labels_key": "celltype"}, "Did you mean 'cell_type'"),
        ({"size_factor_key": "sizes"}, "Did you mean 'size'"),
        ({"categorical_covariate_keys": ["donors"]}, "Did you mean 'donor'"),
        ({"continuous_covariate_keys": ["weight_in_kg"]}, "Available: 'cell_type', 'batch'"),
    ],
)
def test_a_missing_name_suggests_others(counts, kwargs, match):
    before = snapshot(counts)
    with pytest.raises(KeyError, match=match):
        BetaVI.setup_anndata(counts, **kwargs)
    assert snapshot(counts) == before


@pytest.mark.parametrize(
    ("key", "value", "kwargs", "match"),
    [
        ("donor", None, {"batch_key": "donor"}, "has no value for 1 cell.*'cell_2'"),
        ("donor", None, {"categorical_covariate_keys": ["donor"]}, "'cell_2'"),
        ("age", np.nan, {"continuous_covariate_keys": ["age"]}, "not finite in cell.*'cell_2'"),
        ("size", 0.0, {"size_factor_key": "size"}, "not finite and positive in cell.*'cell_2'"),
    ],
)
def test_a_covariate_that_says_nothing_of_a_cell(counts, key, value, kwargs, match):
    counts.obs.loc["cell_2", key] = value
    before = snapshot(counts)
    with pytest.raises(ValueError, match=match):
        BetaVI.setup_anndata(counts, **kwargs)
    assert snapshot(counts) == before


def test_a_continuous_covariate_of_words(counts):
    with pytest.raises(ValueError, match="not numbers"):
        BetaVI.setup_anndata(counts, continuous_covariate_keys=["donor"])


def test_a_mudata_is_refused_with_the_way_out(counts):
    mdata = mudata.MuData({"rna": counts, "other": counts.copy()})
    with pytest.raises(TypeError, match=r"mdata\['rna'\]"):
        BetaVI.setup_anndata(mdata)


@pytest.mark.parametrize("wrong", ["cells.h5ad", np.ones((3, 3)), pd.DataFrame()])
def test_what_is_no_anndata_is_refused(wrong, model, tmp_path):
    for call in (BetaVI.setup_anndata, BetaVI, model.get_elbo):
        with pytest.raises(TypeError, match=f"must be an AnnData, not {type(wrong).__name__}"):
            call(wrong)


def test_a_mudata_is_refused_wherever_it_is_given(counts, model):
    mdata = mudata.MuData({"rna": counts, "other": counts.copy()})
    for call in (BetaVI, model.get_elbo, lambda m: BetaVI.load_query_data(m, model)):
        with pytest.raises(TypeError, match=r"mdata\['rna'\]"):
            call(mdata)
    with pytest.raises(TypeError, match=r"mdata\['rna'\]"):
        BetaVI.prepare_query_anndata(mdata, model)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        (
            {"categorical_covariate_keys": "donor"},
            r"a list of columns: \['donor'\], not 'donor'",
        ),
        ({"continuous_covariate_keys": "age"}, r"a list of columns: \['age'\], not 'age'"),
        ({"batch_key": ["batch"]}, "not the name of one column"),
    ],
)
def test_a_column_for_a_list_and_a_list_for_a_column(counts, kwargs, match):
    with pytest.raises(TypeError, match=match):
        BetaVI.setup_anndata(counts, **kwargs)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_no_cells_or_no_genes(shape):
    with pytest.raises(ValueError, match=f"{shape[0]} cells and {shape[1]} genes"):
        BetaVI.setup_anndata(anndata.AnnData(np.zeros(shape, dtype=np.float32)))


def test_suggestions_leave_out_what_scvi_wrote(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    with pytest.raises(KeyError) as error:
        BetaVI.setup_anndata(counts, batch_key="batc")
    assert "_scvi" not in str(error.value)


def test_failure_inside_scvi_leaves_the_object_untouched(counts, monkeypatch):
    before = snapshot(counts)
    original = CellManager._add_field

    def failing(self, field, adata, **kwargs):
        original(self, field=field, adata=adata, **kwargs)
        if field.registry_key == "extra_categorical_covs":
            raise RuntimeError("interrupted")

    monkeypatch.setattr(CellManager, "_add_field", failing)
    with pytest.raises(RuntimeError, match="interrupted"):
        BetaVI.setup_anndata(
            counts, batch_key="batch", categorical_covariate_keys=["donor"], labels_key="cell_type"
        )
    assert snapshot(counts) == before


def test_setting_up_again_and_failing_keeps_the_first_setup(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    before = snapshot(counts)
    with pytest.raises(KeyError):
        BetaVI.setup_anndata(counts, batch_key="nothing")
    assert snapshot(counts) == before
    assert BetaVI(counts).summary_stats.n_batch == 2


def test_clean_counts_raise_no_warning(counts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BetaVI.setup_anndata(counts, batch_key="batch")


def test_a_view_is_set_up(counts):
    view = counts[10:200, :30]
    BetaVI.setup_anndata(view, batch_key="batch")
    assert not view.is_view
    assert BetaVI(view).summary_stats.n_vars == 30
    assert "_scvi_batch" not in counts.obs


# -- objects that a model is asked about ------------------------------------------------------


def test_an_unknown_batch_is_named_with_the_remedy(counts, model):
    other = counts.copy()
    other.obs["batch"] = other.obs["batch"].cat.rename_categories({"batch_0": "elsewhere"})
    before = snapshot(other)
    with pytest.raises(ValueError, match=r"'elsewhere'.*'batch_0'.*load_query_data"):
        model.get_latent_representation(other)
    assert snapshot(other) == before


def test_a_missing_batch_column_is_named(counts, model):
    other = counts.copy()
    del other.obs["batch"]
    with pytest.raises(KeyError, match="no column 'batch'"):
        model.get_latent_representation(other)


def test_unknown_categories_of_other_covariates(counts):
    BetaVI.setup_anndata(counts, categorical_covariate_keys=["donor"])
    model = BetaVI(counts)
    model.train(**BRIEF)
    other = counts.copy()
    other.obs.loc["cell_0", "donor"] = "z"
    with pytest.raises(ValueError, match=r"adata.obs\['donor'\].*'z'"):
        model.get_elbo(other)


@pytest.mark.parametrize(
    ("genes", "match"),
    [(slice(None, None, -1), "order differs"), (slice(5), "35 are missing: 'gene_5'")],
)
def test_other_genes_are_refused(counts, model, genes, match):
    with pytest.raises(ValueError, match=f"{match}.*prepare_query_anndata"):
        model.get_latent_representation(counts[:, counts.var_names[genes]].copy())


def saved(model, tmp_path):
    model.save(tmp_path / "model")
    return str(tmp_path / "model")


def test_loading_checks_what_getters_check(counts, model, tmp_path):
    folder = saved(model, tmp_path)
    backwards = counts[:, ::-1].copy()
    with pytest.raises(ValueError, match=r"order differs.*prepare_query_anndata"):
        BetaVI.load(folder, adata=backwards)
    elsewhere = counts.copy()
    elsewhere.obs["batch"] = "elsewhere"
    before = snapshot(elsewhere)
    with pytest.raises(ValueError, match=r"adata.obs\['batch'\].*'elsewhere'.*load_query_data"):
        BetaVI.load(folder, adata=elsewhere)
    assert snapshot(elsewhere) == before
    view = elsewhere[:50]
    with pytest.raises(ValueError, match="'elsewhere'"):
        BetaVI.load(folder, adata=view)
    assert view.is_view


def test_mapping_a_query_checks_its_genes_and_cells(counts, model):
    with pytest.raises(ValueError, match=r"10 are missing.*prepare_query_anndata"):
        BetaVI.load_query_data(counts[:, :30].copy(), model)
    query = with_empty_cell(counts.copy())
    with pytest.warns(UserWarning, match="1 cell.* have no counts: 'cell_4'"):
        BetaVI.load_query_data(query, model)


def test_bad_counts_in_a_query_are_named(counts, model):
    with pytest.raises(ValueError, match="cell 'cell_3'"):
        model.get_latent_representation(with_value(counts.copy(), np.nan, dense=False))


def test_a_query_cell_without_counts_has_a_latent(counts, model):
    z = model.get_latent_representation(with_empty_cell(counts.copy()))
    assert np.isfinite(z).all()


def test_long_lists_of_names_are_cut(counts):
    x = counts.X.tolil()
    x[:20] = 0
    counts.X = x.tocsr()
    with pytest.raises(ValueError, match=r"20 cell\(s\).*'cell_4' and 15 more"):
        BetaVI.setup_anndata(counts)


def test_categories_may_be_numbers(counts):
    counts.obs["plate"] = pd.Series(np.arange(counts.n_obs) % 4, index=counts.obs_names)
    BetaVI.setup_anndata(counts, batch_key="plate")
    model = BetaVI(counts)
    model.train(**BRIEF)
    other = counts.copy()
    assert model.get_normalized_expression(other, transform_batch=3).shape == counts.shape
