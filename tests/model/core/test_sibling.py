"""Untrained siblings of a model, with other arguments or other likelihoods."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_multiome
from tests.conftest import BRIEF

LIKELIHOODS = {"rna": "zinb", "adt": "nb_mixture"}


@pytest.fixture
def joint():
    mdata = simulate_multiome(n_cells=80, n_genes=15, n_proteins=5, n_peaks=0, missing={"adt": 0.4})
    JointVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")
    return JointVI(mdata, n_latent=3, n_hidden=16, modality_weights={"adt": 2.0})


def words(model):
    return model.registry_["setup_args"]["likelihoods"]


def test_a_sibling_of_a_joint_model_has_another_likelihood_and_nothing_else(joint):
    other = joint.sibling(likelihoods={"adt": "nb"})
    assert words(other) == {"rna": "zinb", "adt": "nb"}
    assert type(other.likelihood("adt")) is type(
        joint.sibling(likelihoods={"rna": "nb"}).likelihood("rna")
    )
    assert type(other.likelihood("rna")) is type(joint.likelihood("rna"))
    assert other.module.weights == joint.module.weights
    assert other.adata is joint.adata
    fewer = joint.sibling(likelihoods={"adt": "nb"}, n_latent=2)
    assert (fewer.module.options.n_latent, words(fewer)["adt"]) == (2, "nb")
    # a sibling of a sibling keeps its likelihoods
    assert words(other.sibling(n_latent=2)) == words(other)


def test_the_object_and_its_other_models_are_left_alone(joint):
    mdata = joint.adata
    obs, uns = mdata.obs.copy(), copy.deepcopy(dict(mdata.uns))
    registry = copy.deepcopy(joint.registry_["setup_args"])
    other = joint.sibling(likelihoods={"adt": "nb"})
    other.train(**BRIEF)
    joint.train(**BRIEF)
    assert np.isfinite(joint.get_elbo())
    assert joint.registry_["setup_args"] == registry
    assert words(JointVI(mdata)) == LIKELIHOODS
    assert mdata.obs.equals(obs)
    assert dict(mdata.uns) == uns
    assert set(joint.get_likelihood_parameters()["adt"]) != set(
        other.get_likelihood_parameters()["adt"]
    )


def test_a_later_setup_of_the_object_stays_the_last(joint):
    mdata = joint.adata
    JointVI.setup_mudata(mdata, {"rna": "poisson"})
    other = joint.sibling(likelihoods={"adt": "nb"})
    assert words(other) == {"rna": "zinb", "adt": "nb"}
    assert words(JointVI(mdata)) == {"rna": "poisson"}
    # the object was set up otherwise since: its fields are registered anew
    other.train(**BRIEF)
    assert other.get_latent_representation().shape == (80, 3)
    assert words(JointVI(mdata)) == {"rna": "poisson"}


def test_a_sibling_is_saved_with_its_likelihoods(joint, tmp_path):
    other = joint.sibling(likelihoods={"adt": "nb"})
    other.train(**BRIEF)
    other.save(tmp_path / "model")
    loaded = JointVI.load(tmp_path / "model", adata=joint.adata)
    assert words(loaded) == {"rna": "zinb", "adt": "nb"}
    np.testing.assert_allclose(
        loaded.get_latent_representation(), other.get_latent_representation(), rtol=1e-5
    )
    cells = joint.adata.copy()
    assert other.get_latent_representation(cells).shape == (80, 3)


def test_what_makes_no_sibling(joint, counts):
    with pytest.raises(ValueError, match="no modality 'protein'"):
        joint.sibling(likelihoods={"protein": "nb"})
    with pytest.raises(ValueError, match=r"likelihoods\['adt'\] must be one of .*, not 'bn'"):
        joint.sibling(likelihoods={"adt": "bn"})
    assert words(JointVI(joint.adata)) == LIKELIHOODS
    BetaVI.setup_anndata(counts)
    with pytest.raises(TypeError, match="pass gene_likelihood="):
        BetaVI(counts).sibling(likelihoods={"X": "nb"})
