"""Formats of images: quantisation steps, names, and start values."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

from betavi import BetaVI
from betavi.data import Rows, format_in
from betavi.data.images import image_format
from betavi.data.start_images import image_start


def grid(step, offset=0.0, n_levels=50):
    rng = np.random.default_rng(0)
    return offset + step * rng.integers(0, n_levels, (20, 2, 32, 32))


@pytest.mark.parametrize(("step", "offset"), [(1, 0), (16, 0), (1 / 255, 0), (0.5, -3.25)])
def test_the_quantisation_step_is_found(step, offset):
    image = image_format(grid(step, offset).astype(np.float32 if step < 1 else np.uint16))
    assert image.has_step
    assert image.step == pytest.approx(step, rel=1e-3)
    assert image.n_levels == 50
    assert image.lowest == pytest.approx(offset)


def test_continuous_values_have_no_step_but_a_unit():
    images = np.random.default_rng(0).normal(size=(5, 1, 32, 32)).astype(np.float32)
    image = image_format(images)
    assert not image.has_step
    assert image.n_levels == 256
    assert image.step == pytest.approx(np.ptp(images) / 255)


def test_rows_of_images_are_flat_views_of_the_users_array():
    images = grid(1)
    rows = Rows(images)
    assert rows.shape == (20, 2048)
    assert np.shares_memory(rows._data, images)
    np.testing.assert_array_equal(rows[np.array([3, 1])], images[[3, 1]].reshape(2, -1))


def test_start_values_are_those_of_the_chosen_images():
    images = grid(1).astype(np.uint16)
    images[:, 1] += 1000
    adata = AnnData(obsm={"image": images})
    BetaVI.setup_anndata(adata, image_key="image")
    manager = BetaVI(adata, gene_likelihood="band_normal").adata_manager
    start = image_start(manager, "X", np.arange(10))
    chosen = images[:10].astype(float)
    np.testing.assert_allclose(start.mean, chosen.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(start.deviation, chosen.std(axis=(0, 2, 3)), rtol=1e-4)
    assert start.images.shape == (10, 2048)
    assert format_in(manager.registry, "X").shape == (2, 32, 32)
