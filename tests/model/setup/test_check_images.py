"""Images that cannot be modelled are named before training."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from betavi import BetaVI, JointVI
from betavi.data import format_in
from betavi.likelihoods import IMAGE_LIKELIHOODS


def images(n=8, shape=(2, 32, 32), dtype=np.uint16):
    return np.random.default_rng(0).integers(0, 4000, (n, *shape)).astype(dtype)


def holder(values):
    return AnnData(
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(len(values))]), obsm={"image": values}
    )


def set_up(values, **kwargs):
    adata = holder(values)
    before = set(adata.obs), set(adata.uns)
    try:
        BetaVI.setup_anndata(adata, image_key="image", **kwargs)
    except Exception:
        # a failed call changes nothing
        assert (set(adata.obs), set(adata.uns)) == before
        raise
    return adata


def with_value(value, at=(3, 1, 4, 5)):
    values = images(dtype=np.float32)
    values[at] = value
    return values


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 48, 64), (1, 128, 32), (2, 112, 80)])
def test_sizes_that_are_allowed_can_be_modelled(shape):
    adata = set_up(images(4, shape))
    model = BetaVI(adata, gene_likelihood="band_normal", n_latent=3)
    assert format_in(model.registry_, "X").shape == shape
    model.is_trained = True
    assert model.get_latent_representation().shape == (4, 3)
    assert model.get_likelihood_parameters()["mean"].shape == (4, np.prod(shape))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            with_value(np.nan),
            r"NaN or infinite: nan in cell 'cell3' \(row 3\), channel 1, pixel \(4, 5\)",
        ),
        (with_value(-np.inf), "NaN or infinite"),
        (with_value(1e20), "too large"),
        (images()[:, 0], r"3 dimensions.*images\[:, None\]"),
        (images().reshape(8, -1), "2 dimensions"),
        (
            images(shape=(2, 40, 32)),
            "40 by 32 pixels, but sides must be multiples of 16 from 32 to 128",
        ),
        (images(shape=(2, 256, 256)), "256 by 256"),
        (images(shape=(32, 32, 3)), r"looks like channels.*moveaxis"),
        (images(shape=(0, 32, 32)), "0 channels"),
        (images().astype(bool).astype(object), "dtype object"),
    ],
)
def test_what_is_wrong_is_named(values, words):
    with pytest.raises(ValueError, match=words):
        set_up(values)


def test_constant_images_and_channels_are_named():
    values = images()
    values[[2, 5]] = 7
    with pytest.raises(ValueError, match=r"2 image\(s\).*constant: 'cell2', 'cell5'"):
        set_up(values)
    set_up(values, keep_empty_cells=True)
    values = images()
    values[:, 1] = 100
    with pytest.raises(ValueError, match=r"Channel 1 of .* same value in all pixels"):
        set_up(values, keep_empty_cells=True)


def test_saturated_pixels_are_told():
    values = images()
    values[:, 1][values[:, 1] > 3000] = 3000
    with pytest.warns(UserWarning, match=r"% of the pixels in channel 1.* largest value, 3000"):
        set_up(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        set_up(images())
        # few photons have few levels, and the largest is rare
        set_up(np.random.default_rng(0).poisson(0.3, (8, 1, 32, 32)))


def test_names_and_arguments_that_do_not_fit():
    adata = holder(images())
    with pytest.raises(KeyError, match=r"no images 'imag'.*'image'"):
        BetaVI.setup_anndata(adata, image_key="imag")
    with pytest.raises(ValueError, match="`layer` is for counts"):
        BetaVI.setup_anndata(adata, image_key="image", layer="counts")
    adata.obs["size"] = 1.0
    with pytest.raises(ValueError, match="`size_factor_key` is for counts"):
        BetaVI.setup_anndata(adata, image_key="image", size_factor_key="size")
    adata = AnnData(obsm={"image": pd.DataFrame(np.ones((3, 4)), index=["0", "1", "2"])})
    with pytest.raises(TypeError, match="DataFrame, not a NumPy array"):
        BetaVI.setup_anndata(adata, image_key="image")


def test_a_likelihood_of_counts_is_refused_for_images():
    adata = set_up(images())
    with pytest.raises(ValueError, match=r"'zinb', a likelihood of counts.*'band_normal'"):
        BetaVI(adata)
    with pytest.raises(ValueError, match=", ".join(map(repr, IMAGE_LIKELIHOODS))):
        BetaVI(adata, gene_likelihood="bands")
    counts = AnnData(np.ones((9, 4)))
    BetaVI.setup_anndata(counts)
    with pytest.raises(ValueError, match="decoder='convolutional' is for images"):
        BetaVI(counts, decoder="convolutional")


def test_discrete_likelihoods_refuse_other_values():
    floats = np.random.default_rng(0).normal(size=(8, 1, 32, 32)).astype(np.float32)
    for name, words in {
        "logistic_mixture": "no grid",
        "poisson": "negative",
        "nb": "negative",
    }.items():
        with pytest.raises(ValueError, match=words):
            BetaVI(set_up(floats), gene_likelihood=name)
    whole = set_up(images().astype(np.float32))
    assert format_in(BetaVI(whole, gene_likelihood="poisson").registry_, "X").step == 1


def joint(values, likelihoods, **kwargs):
    part = holder(values)
    rna = AnnData(np.random.default_rng(0).poisson(2.0, (len(values), 6)), obs=part.obs.copy())
    mdata = MuData({"rna": rna, "image": part})
    JointVI.setup_mudata(mdata, likelihoods, **kwargs)
    return mdata


def test_a_mudata_says_which_modality_has_images():
    both, keys = {"rna": "nb", "image": "band_normal"}, {"image": "image"}
    with pytest.raises(ValueError, match=r"likelihood of images.*image_keys=\{'image': 'image'\}"):
        joint(images(), both)
    with pytest.raises(KeyError, match=r"mdata\['image'\].obsm has no images 'x'"):
        joint(images(), both, image_keys={"image": "x"})
    with pytest.raises(KeyError, match="`image_keys` names the modality 'image'"):
        joint(images(), {"rna": "nb"}, image_keys=keys)
    with pytest.raises(ValueError, match="both name 'image'"):
        joint(images(), both, image_keys=keys, layers={"image": None})
    with pytest.raises(ValueError, match="'nb_mixture', a likelihood of counts"):
        joint(images(), {"rna": "nb", "image": "nb_mixture"}, image_keys=keys)
    with pytest.raises(ValueError, match="photon counts are not"):
        joint(images().astype(float) - 5, {"rna": "nb", "image": "poisson"}, image_keys=keys)
    with pytest.raises(
        ValueError, match=r"mdata\['image'\].obsm\['image'\] has a value that is NaN"
    ):
        joint(with_value(np.nan), both, image_keys=keys)
    assert JointVI(joint(images(), both, image_keys=keys)).modalities == ["rna", "image"]


def test_images_of_another_size_are_refused_by_a_model():
    model = BetaVI(set_up(images()), gene_likelihood="normal_image", n_latent=3)
    model.is_trained = True
    with pytest.raises(
        ValueError, match=r"shape \(2, 32, 48\), but the model was set up with .*32, 32"
    ):
        model.get_latent_representation(holder(images(shape=(2, 32, 48))))
