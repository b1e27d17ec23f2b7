"""What setup_mudata takes, and what it says of the rest."""

from __future__ import annotations

import warnings

import anndata
import mudata
import numpy as np
import pytest

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_multiome

LIKELIHOODS = {"rna": "zinb", "adt": "nb_mixture"}


def build(**kwargs):
    return simulate_multiome(**{"n_cells": 120, "n_genes": 30, "n_peaks": 0} | kwargs)


def joined(**parts):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mudata.MuData(parts)


def test_an_anndata_is_refused():
    adata = build()["rna"]
    with pytest.raises(TypeError, match="must be a MuData, not AnnData"):
        JointVI.setup_mudata(adata, LIKELIHOODS)
    with pytest.raises(TypeError, match=r"JointVI\.setup_mudata"):
        JointVI.setup_anndata(adata)
    with pytest.raises(TypeError, match="must be a MuData"):
        JointVI(adata)
    with pytest.raises(TypeError, match=r"one modality, but .adata. is a MuData"):
        BetaVI.setup_anndata(build())


@pytest.mark.parametrize("kind", ["categorical", "continuous"])
def test_a_column_for_a_list_is_refused(kind):
    argument = f"{kind}_covariate_keys"
    with pytest.raises(TypeError, match=rf"`{argument}` must be a list of columns: \['batch'\]"):
        JointVI.setup_mudata(build(), LIKELIHOODS, **{argument: "batch"})


def test_modalities_that_are_not_there_are_named():
    mdata = build()
    with pytest.raises(KeyError, match="no modality 'prot'"):
        JointVI.setup_mudata(mdata, {"rna": "zinb", "prot": "nb_mixture"})
    with pytest.raises(
        KeyError, match="`layers` names the modality 'adt', but `likelihoods` does not"
    ):
        JointVI.setup_mudata(mdata, {"rna": "zinb"}, layers={"adt": "raw"})
    with pytest.raises(KeyError, match="no layer 'raw'"):
        JointVI.setup_mudata(mdata, LIKELIHOODS, layers={"adt": "raw"})
    with pytest.raises(ValueError, match=r"likelihoods\['adt'\] must be one of .*'nb_mixture'"):
        JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "protein"})
    with pytest.raises(ValueError, match="names no modality"):
        JointVI.setup_mudata(mdata, {})


def test_impossible_counts_are_named_with_modality_cell_and_feature():
    mdata = build()
    mdata["adt"].X = mdata["adt"].X.toarray().astype(np.float32)
    mdata["adt"].X[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"mdata\['adt'\].X has .* 'cell_3' .* gene 'protein_2'"):
        JointVI.setup_mudata(mdata, LIKELIHOODS)
    assert "_scvi_uuid" not in mdata.uns
    assert not [column for column in mdata.obs if column.startswith("_scvi")]


def test_repeated_names_are_named():
    rna = build()["rna"].copy()
    rna.var_names = ["gene_0", *rna.var_names[:-1]]
    with pytest.raises(ValueError, match=r"mdata\['rna'\] has repeated feature names: 'gene_0'"):
        JointVI.setup_mudata(joined(rna=rna), {"rna": "zinb"})


def test_cells_of_other_modalities_only_are_named():
    mdata = build(missing={"rna": 0.5})
    lacking = mdata.obs_names[mdata.obsmap["rna"] == 0]
    with pytest.raises(
        ValueError,
        match=rf"{len(lacking)} cell\(s\) have none of the registered modalities \('rna'",
    ):
        JointVI.setup_mudata(mdata, {"rna": "zinb"})


def test_cells_without_overlap_are_allowed_and_told():
    mdata = build()
    names = mdata.obs_names
    apart = joined(rna=mdata["rna"][names[:60]].copy(), adt=mdata["adt"][names[60:]].copy())
    with pytest.warns(UserWarning, match="No cell links 'rna' to 'adt'"):
        JointVI.setup_mudata(apart, LIKELIHOODS)


def test_binary_counts_are_told():
    mdata = build(n_peaks=40)
    mdata["atac"].X = (mdata["atac"].X > 0).astype(np.int32)
    with pytest.warns(UserWarning, match=r"mdata\['atac'\] has no value above 1.*'bernoulli'"):
        JointVI.setup_mudata(mdata, {"rna": "zinb", "atac": "poisson"})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        JointVI.setup_mudata(mdata, {"rna": "zinb", "atac": "bernoulli"})


def test_features_that_a_batch_was_not_measured_for_are_named():
    mdata = build(n_batches=2)
    in_batch = (mdata.obs["batch"] == "batch_1").to_numpy()
    counts = mdata["adt"].X.toarray()
    counts[in_batch, 4] = 0
    mdata["adt"].X = counts
    with pytest.raises(ValueError, match=r"no counts in batch 'batch_1'.*'protein_4'") as caught:
        JointVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")
    assert caught.value.__notes__ == ["All these features: ['protein_4']"]
    JointVI.setup_mudata(mdata, LIKELIHOODS)
    with pytest.warns(UserWarning, match="'protein_4'.*treats the zeros as biology"):
        JointVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch", keep_absent_features=True)


def test_a_few_features_that_a_batch_lacks_are_biology():
    """Genes of the Y chromosome, for instance."""
    mdata = build(n_batches=2, n_genes=400)
    in_batch = (mdata.obs["batch"] == "batch_1").to_numpy()
    counts = mdata["rna"].X.toarray()
    counts[in_batch, 7] = 0
    counts[~in_batch, 7] = 5
    mdata["rna"].X = counts
    with pytest.warns(UserWarning, match="1 feature.*'gene_7'.*treats the zeros as biology"):
        JointVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")


def test_rows_of_zeros_are_told():
    """They are how other packages say that a cell lacks an assay, and here they are counts."""
    mdata = build()
    counts = mdata["adt"].X.toarray()
    counts[:30] = 0
    mdata["adt"].X = counts
    with pytest.warns(UserWarning, match=r"30 cell.*mdata\['adt'\] have no counts.*need no zeros"):
        JointVI.setup_mudata(mdata, LIKELIHOODS)


def test_an_assay_that_hangs_on_to_no_other_is_told():
    mdata = build(n_peaks=40)
    names = mdata.obs_names
    parts = {name: mdata[name][names[:60]].copy() for name in ("rna", "adt")}
    apart = joined(**parts, atac=mdata["atac"][names[60:]].copy())
    with pytest.warns(UserWarning, match="No cell links 'rna', 'adt' to 'atac'"):
        JointVI.setup_mudata(apart, {**LIKELIHOODS, "atac": "bernoulli"})


@pytest.mark.parametrize("rows", [slice(None, None, -1), slice(20, None)])
def test_an_assay_that_was_changed_afterwards_is_refused(rows):
    """The MuData would take its rows for those of other cells."""
    mdata = build()
    mdata.mod["adt"] = mdata["adt"][rows].copy()
    with pytest.raises(ValueError, match=r"mdata\['adt'\] was changed.*mdata.update"):
        JointVI.setup_mudata(mdata, LIKELIHOODS)
    mdata.update()
    JointVI.setup_mudata(mdata, LIKELIHOODS)


def test_a_batch_that_says_nothing_of_a_cell_is_named():
    mdata = build(n_batches=2)
    mdata.obs.loc["cell_7", "batch"] = np.nan
    with pytest.raises(ValueError, match=r"has no value for 1 cell.*'cell_7'"):
        JointVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")
    with pytest.raises(KeyError, match="no column 'lane'"):
        JointVI.setup_mudata(mdata, LIKELIHOODS, batch_key="lane")


def test_five_modalities_register():
    mdata = build(n_peaks=40)
    parts = {f"m{i}": mdata[name].copy() for i, name in enumerate(["rna", "adt", "atac"])}
    for extra in ("m3", "m4"):
        parts[extra] = anndata.AnnData(mdata["adt"].X.copy(), obs=mdata["adt"].obs.copy())
        parts[extra].var_names = [f"{extra}_{i}" for i in range(parts[extra].n_vars)]
    many = joined(**parts)
    JointVI.setup_mudata(many, dict.fromkeys(parts, "nb"))
    assert JointVI(many, n_latent=3).modalities == list(parts)
