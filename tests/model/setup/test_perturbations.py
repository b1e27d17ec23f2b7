"""Bad conditions are named before training, and the object stays as it was."""

from __future__ import annotations

import warnings

import mudata
import numpy as np
import pandas as pd
import pytest

from betavi import BetaVI, EffectVI
from betavi.data.conditions import Conditions
from betavi.datasets import simulate_perturbations
from tests.model.test_setup import snapshot

KEYS = {"perturbation_key": "perturbation"}


@pytest.fixture
def screen():
    adata = simulate_perturbations(
        120, 15, 3, 1, doses=(1.0, 10.0), n_contexts=2, n_replicates=2, seed=1
    )
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str)
    return adata


def refused(adata, error, match, **kwargs):
    before = snapshot(adata)
    with pytest.raises(error, match=match):
        EffectVI.setup_anndata(adata, **(KEYS | kwargs))
    assert snapshot(adata) == before


def with_value(adata, column, value, row=3):
    is_number = pd.api.types.is_numeric_dtype(adata.obs[column]) and not isinstance(value, str)
    values = adata.obs[column].astype(float if is_number else object)
    values.iloc[row] = value
    adata.obs[column] = values
    return adata


def test_every_column_is_registered(screen):
    EffectVI.setup_anndata(
        screen, **KEYS, dose_key="dose", context_key="context", replicate_key="replicate",
        batch_key="sample",
    )  # fmt: skip
    found = EffectVI(screen).conditions
    assert found.perturbations == ("P0", "P1", "P2")
    assert len(found.pair_names) == 1
    assert found.contexts == ("context_0", "context_1")
    assert found.doses.max() == 10
    assert EffectVI(screen).summary_stats.n_batch == screen.obs["sample"].nunique()


def test_only_the_conditions_are_necessary(screen):
    EffectVI.setup_anndata(screen, **KEYS)
    found = EffectVI(screen).conditions
    assert found.doses is None
    assert found.contexts == ("",)


def test_a_view_is_copied(screen):
    part = screen[:100]
    EffectVI.setup_anndata(part, **KEYS)
    assert not part.is_view


def test_another_control_and_separator(screen):
    names = screen.obs["perturbation"].str.replace("control", "NT").str.replace("+", " & ")
    screen.obs["perturbation"] = names
    EffectVI.setup_anndata(screen, **KEYS, control="NT", separator="&")
    assert EffectVI(screen).conditions.perturbations == ("P0", "P1", "P2")


def test_controls_may_be_named_as_a_combination(screen):
    screen.obs["perturbation"] = screen.obs["perturbation"].replace("control", "control+control")
    EffectVI.setup_anndata(screen, **KEYS)
    assert EffectVI(screen).conditions.perturbations == ("P0", "P1", "P2")


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"perturbation_key": "perturbations"}, "'perturbations'. Did you mean 'perturbation'"),
        ({"dose_key": "doses"}, "'doses'. Did you mean 'dose'"),
        ({"context_key": "contexts"}, "Did you mean 'context'"),
        ({"replicate_key": "replicates"}, "Did you mean 'replicate'"),
        ({"batch_key": "Sample"}, "Did you mean 'sample'"),
        ({"layer": "counts"}, "no layer 'counts'"),
    ],
)
def test_a_missing_name_suggests_others(screen, kwargs, match):
    refused(screen, KeyError, match, **kwargs)


@pytest.mark.parametrize("key", ["perturbation_key", "dose_key", "context_key"])
def test_a_column_must_be_a_name(screen, key):
    refused(screen, TypeError, "not the name of one column", **{key: ["perturbation"]})


@pytest.mark.parametrize("column", ["perturbation", "dose", "context", "replicate"])
def test_a_missing_value_is_named_by_its_cell(screen, column):
    with_value(screen, column, np.nan)
    kwargs = KEYS | {f"{column}_key": column}
    refused(screen, ValueError, rf"obs\['{column}'\] has no value for 1 cell.*'cell_3'", **kwargs)


def test_without_control_cells(screen):
    refused(
        screen, ValueError, "no control cells: `control` is 'contrl'.*'control'", control="contrl"
    )
    part = screen[screen.obs["perturbation"] != "control"].copy()
    refused(part, ValueError, "no control cells")


def test_with_control_cells_only(screen):
    part = screen[screen.obs["perturbation"] == "control"].copy()
    refused(part, ValueError, "only control cells")


@pytest.mark.parametrize("name", ["control", "separator"])
@pytest.mark.parametrize("value", ["", " ", None, 0])
def test_control_and_separator_are_texts(screen, name, value):
    refused(screen, ValueError, f"`{name}` must be a text", **{name: value})


@pytest.mark.parametrize(
    ("name", "match"),
    [("P0+", "'P0\\+' has an empty part"), ("P0+P0", "'P0\\+P0' names a perturbation twice")],
)
def test_a_name_that_cannot_be_split(screen, name, match):
    refused(with_value(screen, "perturbation", name), ValueError, match)


def test_a_category_without_cells_is_refused(screen):
    names = [*screen.obs["perturbation"].unique(), "P9"]
    screen.obs["perturbation"] = pd.Categorical(screen.obs["perturbation"], names)
    refused(screen, ValueError, "'perturbation'.*without cells: 'P9'")


def single_at(adata, dose):
    row = int(np.flatnonzero(adata.obs["perturbation"] == "P0")[0])
    adata.obs["dose"] = adata.obs["dose"].astype(type(dose))
    return with_value(adata, "dose", dose, row)


@pytest.mark.parametrize(
    ("dose", "match"),
    [
        (0.0, "condition 'P0' have the dose 0.0, but it must be above 0"),
        (-1.0, "dose -1.0 is not a number"),
        (np.inf, "dose inf is not a number"),
        ("high", "dose 'high' is not a number"),
        ("1+2", "condition 'P0' have the dose '1\\+2'.*each of 1 perturbation"),
    ],
)
def test_a_wrong_dose_is_named(screen, dose, match):
    refused(single_at(screen, dose), ValueError, match, dose_key="dose")


def of_pairs(adata, pair_dose):
    is_pair = adata.obs["perturbation"].str.contains("+", regex=False)
    adata.obs["dose"] = np.where(is_pair, pair_dose, adata.obs["dose"].astype(str))
    return adata


def test_doses_of_a_combination_are_text(screen):
    EffectVI.setup_anndata(of_pairs(screen, "1+0.5"), **KEYS, dose_key="dose")
    assert [1.0, 0.5] in EffectVI(screen).conditions.doses.tolist()


@pytest.mark.parametrize(
    ("dose", "match"),
    [("1+2+3", "each of 2 perturbation"), ("1+0", "above 0"), ("1+x", "not a number")],
)
def test_wrong_doses_of_a_combination(screen, dose, match):
    refused(of_pairs(screen, dose), ValueError, match, dose_key="dose")


def test_a_control_may_have_any_dose(screen):
    doses = screen.obs["dose"].where(screen.obs["perturbation"] != "control", 10.0)
    screen.obs["dose"] = doses
    EffectVI.setup_anndata(screen, **KEYS, dose_key="dose")


def test_a_mudata_is_refused(screen):
    mdata = mudata.MuData({"rna": screen})
    with pytest.raises(TypeError, match="MuData"):
        EffectVI.setup_anndata(mdata, **KEYS)


def test_impossible_counts_are_named(screen):
    x = screen.X.toarray().astype(float)
    x[3, 5] = -1
    screen.X = x
    refused(screen, ValueError, "negative.*'cell_3'")


def test_a_flag_must_be_a_flag(screen):
    refused(screen, TypeError, "`keep_empty_cells` must be True or False", keep_empty_cells="yes")


def test_a_list_of_covariates_is_a_list(screen):
    refused(screen, TypeError, "must be a list", categorical_covariate_keys="sample")


@pytest.fixture
def model(screen):
    EffectVI.setup_anndata(screen, **KEYS, dose_key="dose", context_key="context")
    model = EffectVI(screen, n_latent=2, n_hidden=8)
    model.is_trained_ = True
    return model


def test_new_cells_need_no_controls(screen, model):
    for name in ("control", "P0"):
        part = screen[screen.obs["perturbation"] == name].copy()
        assert model.get_latent_representation(part).shape == (part.n_obs, 2)


@pytest.mark.parametrize(
    ("column", "value"), [("perturbation", "P7"), ("dose", 3.0), ("context", "liver")]
)
def test_conditions_new_to_a_model_are_named(screen, model, column, value):
    part = screen[screen.obs["perturbation"] == "P0"].copy()
    part.obs[column] = value
    with pytest.raises(ValueError, match=rf"'{column}'\] has values .* not trained on: {value!r}"):
        model.get_latent_representation(part)


def test_the_registry_has_the_conditions(model):
    found = Conditions.of_registry(model.registry_)
    assert found.perturbations == model.conditions.perturbations
    assert found.control == "control"


def test_other_models_have_no_conditions(screen):
    BetaVI.setup_anndata(screen)
    assert "perturbation" not in BetaVI(screen).registry_["field_registries"]


def test_a_wrong_control_of_names_with_two_controls_is_named(screen):
    screen.obs["perturbation"] = screen.obs["perturbation"].replace("control", "control+control")
    refused(
        screen, ValueError, "twice.* No cell has the `control` 'DMSO'.*'control'", control="DMSO"
    )


def test_a_dose_of_zero_has_a_remedy(screen):
    match = "above 0. If they are controls, give them the control's name, 'control'. .* drop"
    refused(single_at(screen, 0.0), ValueError, match, dose_key="dose")


@pytest.mark.parametrize("other", ["|", "_", "&", " & ", ";"])
@pytest.mark.parametrize("is_alone", [True, False])
def test_another_separator_is_warned_of(screen, other, is_alone):
    names = screen.obs["perturbation"].str.replace("+", other)
    if not is_alone:
        is_single = ~names.str.contains(other, regex=False) & (names != "control")
        names = names.where(~is_single, names + other + "control")
    screen.obs["perturbation"] = names
    with pytest.warns(UserWarning, match=rf"No .*separator '\+'.*separator='\{other.strip()}'"):
        EffectVI.setup_anndata(screen, **KEYS)


@pytest.mark.parametrize("name", ["Azd_5991", "HLA|A", "control_2"])
def test_names_with_other_signs_are_no_combinations(screen, name):
    names = screen.obs["perturbation"].where(
        ~screen.obs["perturbation"].str.contains("+", regex=False)
    )
    screen.obs["perturbation"] = names.fillna("P1").replace("P0", name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EffectVI.setup_anndata(screen, **KEYS)
