"""All cells of a left-out condition are left out, and contexts without controls are not scored."""

from __future__ import annotations

import numpy as np
import pytest

import betavi
from betavi.data.conditions import Conditions
from betavi.model.effects.folds import folds_of
from betavi.module.effect_groups import Groups, one_code_each
from tests.model.effects.screens import fitted, screen

NAMES = ["A", "A+B", "B", "B+A", "control"]
CONDITIONS = Conditions.of_names(NAMES, "control", doses=[0, 1, 3], contexts=("x", "y"))


def groups(*conditions):
    """Return groups of a name, a dose and a context each."""
    codes = [
        [NAMES.index(name), [0, 1, 3].index(dose), "xy".index(context), 0, 0]
        for name, dose, context in conditions
    ]
    return Groups(np.array(codes), np.arange(len(codes)))


CONTROLS = [("control", 0, "x"), ("control", 0, "y")]
DRUG = [("A", 1, "x"), ("A", 3, "x"), ("A", 1, "y"), ("A", 3, "y")]
PAIR = [("B", 1, "x"), ("A+B", 1, "x"), ("A+B", 3, "x"), ("B", 3, "y"), ("A+B", 3, "y")]


def left_out(split, conditions):
    """Return the numbers of the groups that are scored and left out, by the name of a fold."""
    return {
        fold.name: (np.flatnonzero(fold.held_out).tolist(), np.flatnonzero(fold.left_out).tolist())
        for fold in folds_of(CONDITIONS, groups(*conditions), split)
    }


def test_a_combination_is_left_out_at_all_doses_and_in_all_contexts():
    assert left_out("combination", CONTROLS + DRUG + PAIR) == {
        "A+B at 1+1 in x": ([7], [7, 8, 10]),
        "A+B at 3+3 in x": ([8], [7, 8, 10]),
        "A+B at 3+3 in y": ([10], [7, 8, 10]),
    }


def test_larger_combinations_are_left_out_with_the_pairs_that_they_contain():
    names = ["A", "A+B", "A+B+C", "A+C", "B", "C", "control"]
    conditions = Conditions.of_names(names, "control")
    codes = np.column_stack([np.arange(7), *[np.zeros(7, dtype=int)] * 4])
    found = folds_of(conditions, Groups(codes, np.arange(7)), "combination")
    assert {fold.name: np.flatnonzero(fold.left_out).tolist() for fold in found} == {
        "A+B": [1, 2], "A+B+C": [2], "A+C": [2, 3],
    }  # fmt: skip
    assert all(fold.held_out.sum() == 1 for fold in found)


def test_a_context_is_left_out_at_all_doses():
    assert left_out("context", CONTROLS + DRUG) == {
        "A at 1 in x": ([2], [2, 3]),
        "A at 3 in x": ([3], [2, 3]),
        "A at 1 in y": ([4], [4, 5]),
        "A at 3 in y": ([5], [4, 5]),
    }


def test_one_dose_is_left_out_alone():
    found = left_out("dose", CONTROLS + DRUG)
    assert found["A at 3 in y"] == ([5], [5])
    assert len(found) == 4


@pytest.mark.parametrize(("split", "n_folds"), [("combination", 2), ("context", 0), ("dose", 4)])
def test_contexts_without_controls_are_not_scored(split, n_folds):
    with pytest.warns(UserWarning, match="some contexts have none: 'y'"):
        found = left_out(split, CONTROLS[:1] + DRUG + PAIR)
    assert len(found) == n_folds
    assert all(name.endswith("in x") for name in found)


def test_names_and_doses_of_one_condition_have_one_code():
    codes = groups(("A+B", 1, "x"), ("B+A", 1, "x"), ("control", 0, "x"), ("control", 3, "x")).codes
    found = one_code_each(codes[:, :2], CONDITIONS)
    assert found[0].tolist() == found[1].tolist()
    assert found[2].tolist() == found[3].tolist()
    assert found[0].tolist() != found[2].tolist()


def test_other_names_of_conditions_change_nothing():
    adata = screen(1500, n_genes=60, n_perturbations=3, n_combinations=2)
    other = adata.copy()
    names = other.obs["perturbation"].astype(str)
    reverse = names.map(lambda name: "+".join(reversed(name.split("+"))))
    reverse = reverse.where(names != "P0", "P0+control").replace("control", "control+control")
    is_second = np.arange(len(names)) % 2 == 1
    other.obs["perturbation"] = names.where(~is_second, reverse)
    one, two = fitted(adata), fitted(other)
    pair = one.conditions.pair_names[0]
    np.testing.assert_allclose(one.predict(pair).X, two.predict(pair).X, rtol=1e-5)
    back = "+".join(reversed(pair.split("+")))
    assert two.predict([back, "P0+control"]).obs_names.tolist() == [pair, "P0"]
    assert two.predict([back, "P0"]).obs["is_measured"].all()
    tables = [model.evaluate(by_condition=True, show_progress=False) for model in (one, two)]
    assert tables[0].index.equals(tables[1].index)
    np.testing.assert_allclose(tables[0]["r_centroid"], tables[1]["r_centroid"], atol=1e-6)
    sizes = [model.state_information()["n_conditions"].item() for model in (one, two)]
    assert sizes[0] == sizes[1]


@pytest.fixture(scope="module")
def without_control():
    """A model of two contexts, one of them without control cells."""
    adata = screen(1200, n_genes=60, n_perturbations=2, n_combinations=1, n_contexts=2)
    obs = adata.obs
    keep = (obs["perturbation"] != "control") | (obs["context"] == "context_0")
    return fitted(adata[keep.to_numpy()].copy(), keys={"context_key": "context"})


def test_a_change_from_a_control_without_cells_is_not_measured(without_control):
    found = without_control.predict(["control", "P0"]).obs
    assert found["is_measured"].tolist() == [True, False, True, False]


def test_evaluation_without_a_control(without_control):
    with pytest.warns(UserWarning, match="none: 'context_1'"):
        table = without_control.evaluate(by_condition=True, show_progress=False)
    assert {name for name, _ in table.index} == {"P0+P1 in context_0"}
    with (
        pytest.warns(UserWarning, match="none: 'context_1'"),
        pytest.raises(ValueError, match="in two contexts with control cells"),
    ):
        without_control.evaluate("context", show_progress=False)
    adata = without_control.adata
    with pytest.raises(ValueError, match=r"in the context 'context_1'.*drop these cells"):
        betavi.metrics.measured_changes(adata, "perturbation", context_key="context")
