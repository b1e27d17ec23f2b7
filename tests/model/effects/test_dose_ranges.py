"""Each drug has its own range of doses, and controls have none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.model.effects.screens import fitted, screen

DOSES = (0.1, 1, 10)


def shifted(factor, control_dose):
    """Return a model of a screen in which P1 has doses that are larger by a factor."""
    adata = screen(1500, n_genes=80, n_perturbations=2, n_combinations=0, doses=DOSES)
    names = adata.obs["perturbation"].astype(str)
    scale = names.map({"control": 1.0, "P0": 1.0, "P1": factor})
    adata.obs["dose"] = (adata.obs["dose"] * scale).where(names != "control", control_dose)
    return fitted(adata, keys={"dose_key": "dose"})


@pytest.fixture(scope="module")
def equal():
    return shifted(1.0, 0.0)


@pytest.fixture(scope="module")
def apart():
    return shifted(1e4, 1e8)


def test_the_range_is_that_of_the_perturbation(apart):
    for name, dose, ends in (("P0", 1e4, "0.1 to 10"), ("P1", 10.0, "1000 to 100000")):
        with pytest.raises(ValueError, match=f"{dose:g} of '{name}' is outside the .*, {ends}"):
            apart.predict(name, dose=dose)
        assert not apart.predict(name, dose=dose, extrapolate=True).obs["is_measured"].any()
    with pytest.raises(ValueError, match=r"10 of 'P1' is outside"):
        apart.predict("P0+P1", dose=10.0)
    assert apart.predict("P0+P1", dose=[1.0, 1e4]).obs["dose"].tolist() == ["1+10000"]


def test_only_doses_of_cells_are_measured(apart):
    for dose, is_measured in ((1.0, True), (0.5, False), (10.0, True)):
        assert apart.predict("P0", dose=dose).obs["is_measured"].tolist() == [is_measured]
    assert apart.predict("control").obs["is_measured"].all()


def test_doses_of_other_perturbations_and_of_controls_do_not_matter(equal, apart):
    expected, found = equal.dose_response(), apart.dose_response()
    found.loc["P1", ["ec50", "lower", "upper"]] /= 1e4
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3)
    for layer in ("lfc", "lfc_lower", "lfc_upper"):
        one, two = (model.predict("P0", dose=0.3).layers[layer] for model in (equal, apart))
        np.testing.assert_allclose(one, two, atol=1e-3)


def test_an_ec50_outside_the_own_doses_is_not_determined(apart):
    estimate = apart.module.stored_estimate()
    assert estimate.doses_of(0).tolist() == pytest.approx(DOSES)
    assert estimate.doses_of(1).tolist() == pytest.approx([1e3, 1e4, 1e5])
    # the grid lies around the posterior, within ten times the range of the own doses
    lowest, highest = np.exp(estimate.curves.log_ec50[:, [0, -1]]).T
    assert (lowest > 0.99 * np.array([0.01, 100])).all()
    assert (highest < 1.01 * np.array([100, 1e6])).all()
