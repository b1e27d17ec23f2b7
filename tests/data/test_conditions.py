"""Names of conditions, their doses, and what cannot be read."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.data.conditions import Conditions, split_condition
from betavi.data.doses import split_doses


@pytest.mark.parametrize(
    ("name", "separator", "parts"),
    [
        ("ctrl", "+", []),
        ("A", "+", ["A"]),
        ("A+B", "+", ["A", "B"]),
        ("B+A", "+", ["B", "A"]),
        (" A + B ", "+", ["A", "B"]),
        ("A+ctrl", "+", ["A"]),
        ("ctrl+A", "+", ["A"]),
        ("ctrl+ctrl", "+", []),
        ("A+B+C", "+", ["A", "B", "C"]),
        ("A_B", "_", ["A", "B"]),
        ("A_B", "+", ["A_B"]),
        ("HLA-A|B2M", "|", ["HLA-A", "B2M"]),
        ("A and B", " and ", ["A", "B"]),
        ("control", "+", ["control"]),
    ],
)
def test_names_are_split_without_the_control(name, separator, parts):
    assert split_condition(name, "ctrl", separator) == parts


@pytest.mark.parametrize("control", ["DMSO+vehicle", "ctrl ", " ctrl"])
def test_a_control_may_have_a_separator_or_spaces(control):
    assert split_condition(control, control, "+") == []
    assert split_condition(f"A+{control}", control, "+")[0] == "A"
    assert Conditions.of_names(["A", control], control).perturbations == ("A",)


def test_a_control_with_spaces_is_a_part_of_a_name():
    assert split_condition("A+ctrl ", "ctrl ", "+") == ["A"]


@pytest.mark.parametrize("name", ["A+", "+A", "A++B", "+", "", " ", "A+ "])
def test_empty_parts_are_refused(name):
    with pytest.raises(ValueError, match=r"has an empty part.*'\+'"):
        split_condition(name, "ctrl", "+")


@pytest.mark.parametrize("name", ["A+A", "A+B+A", "A+ A"])
def test_a_perturbation_named_twice_is_refused(name):
    with pytest.raises(ValueError, match="names a perturbation twice"):
        split_condition(name, "ctrl", "+")


@pytest.mark.parametrize(
    ("value", "separator", "doses"),
    [
        (1, "+", [1]),
        (0.5, "+", [0.5]),
        (np.float32(2), "+", [2]),
        ("3", "+", [3]),
        ("1+0.5", "+", [1, 0.5]),
        (" 1 + 0.5 ", "+", [1, 0.5]),
        ("1e-3+2", "+", [1e-3, 2]),
        ("1_5", "_", [1, 5]),
        ("1e+02", "+", [100]),
        ("1e-02", "-", [0.01]),
        (0, "+", [0]),
        (1e-3, "-", [1e-3]),
    ],
)
def test_doses_are_numbers_or_text(value, separator, doses):
    assert split_doses(value, separator) == pytest.approx(doses)


@pytest.mark.parametrize(
    "value", [-1, "-1", "1+-2", "high", "1+", "", "1+high", np.nan, np.inf, None]
)
def test_other_doses_are_refused(value):
    with pytest.raises(ValueError, match="not a number of at least 0"):
        split_doses(value, "+")


def test_codes_of_conditions_and_pairs():
    found = Conditions.of_names(["ctrl", "B+A", "A", "A+B", "C", "A+C+B", "B"], "ctrl")
    assert found.perturbations == ("A", "B", "C")
    assert found.parts.tolist() == [
        [-1, -1, -1], [1, 0, -1], [0, -1, -1], [0, 1, -1], [2, -1, -1], [0, 2, 1], [1, -1, -1],
    ]  # fmt: skip
    # the triple has three pairs
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert found.pair_names == ["A+B", "A+C", "B+C"]
    assert found.doses is None


def test_without_combinations_there_are_no_pairs():
    found = Conditions.of_names(["ctrl", "A", "B+ctrl"], "ctrl")
    assert found.parts.shape == (3, 1)
    assert found.pairs.shape == (0, 2)
    assert Conditions.of_names(["ctrl"], "ctrl").parts.tolist() == [[-1]]


def test_doses_follow_the_order_of_the_names():
    names, doses = ["ctrl", "B+A", "A"], [0, 2, "1+0.5", "0.1", "1+2+3"]
    found = Conditions.of_names(names, "ctrl", doses=doses)
    assert found.doses.tolist() == [[0, 0], [2, 2], [1, 0.5], [0.1, 0.1], [1, 2]]


def test_codes_of_new_combinations():
    found = Conditions.of_names(["ctrl", "KLF1", "BAK1", "CEBPA"], "ctrl")
    assert found.codes_of("KLF1+CEBPA").tolist() == [2, 1]
    assert found.codes_of("CEBPA+ctrl").tolist() == [1]
    assert found.codes_of("ctrl").tolist() == []
    assert found.codes_of("ctrl").dtype == np.int64


def test_an_unknown_perturbation_has_suggestions():
    found = Conditions.of_names(["ctrl", "KLF1", "BAK1"], "ctrl")
    with pytest.raises(KeyError, match=r"'KLF2' was not measured. Did you mean 'KLF1'"):
        found.codes_of("BAK1+KLF2")
    with pytest.raises(KeyError, match="'1' was not measured"):
        found.codes_of(1)


def test_names_may_be_numbers():
    found = Conditions.of_names([0, 1, 2], "0")
    assert found.perturbations == ("1", "2")
    assert found.codes_of(2).tolist() == [1]


def test_conditions_of_a_registry():
    state = {"state_registry": {"categorical_mapping": np.array(["A", "A+B", "ctrl"])}}
    doses = {"state_registry": {"categorical_mapping": np.array([0.0, 1.0])}}
    registry = {
        "setup_args": {"control": "ctrl", "separator": "+", "dose_key": "dose"},
        "field_registries": {"perturbation": state, "dose": doses},
    }
    found = Conditions.of_registry(registry)
    assert found.perturbations == ("A", "B")
    assert found.doses.tolist() == [[0, 0], [1, 1]]
    assert found.contexts == ("",)
    registry["setup_args"]["dose_key"] = None
    assert Conditions.of_registry(registry).doses is None
