"""Values come back from JSON with their types, and an unknown type is refused by its path."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from betavi.model.io.typed_json import NAMED, NULLABLE, decode, encode


def returned(value):
    return decode(json.loads(json.dumps(encode(value, "value"), allow_nan=False)))


def same(one, other):
    """Return True if two values are equal, with types, and with missing values in the same places."""
    if isinstance(one, pd.DataFrame | pd.Series | pd.Index):
        check = {
            pd.DataFrame: pd.testing.assert_frame_equal,
            pd.Series: pd.testing.assert_series_equal,
        }.get(type(one), pd.testing.assert_index_equal)
        check(one, other)
        return True
    if isinstance(one, pd.api.extensions.ExtensionArray):
        pd.testing.assert_extension_array_equal(one, other)
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        is_alike = one.dtype == other.dtype and one.shape == other.shape
        return is_alike and all(map(same, one.ravel().tolist(), other.ravel().tolist()))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if one is pd.NA:
        return other is pd.NA
    return one == other or (one != one and other != other)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(pd.NA),
    arrays.arrays(arrays.scalar_dtypes(), 1).map(lambda found: found[0]).filter(
        lambda value: value.dtype.kind in "biufU" and value.dtype.itemsize < 16
    ),
)  # fmt: skip
ARRAYS = st.one_of(
    arrays.arrays(
        st.one_of(
            arrays.integer_dtypes(), arrays.floating_dtypes(sizes=(16, 32, 64)),
            arrays.boolean_dtypes(), arrays.unicode_string_dtypes(), arrays.datetime64_dtypes(),
        ),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ),
    arrays.arrays(object, arrays.array_shapes(min_side=0, max_side=3), elements=SCALARS),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(SCALARS, ARRAYS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.dictionaries(st.one_of(st.integers(), st.sampled_from(["@tuple", "@x"])), inner),
    ),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(VALUES)
def test_any_plain_value_comes_back(value):
    assert same(value, returned(value))


@pytest.mark.parametrize(
    "value",
    [
        {1, "a"},
        torch.tensor([[1.5], [2.0]]),
        torch.tensor([]),
        pd.Index(["a", "b"], name="gene"),
        pd.Index([1.5, np.nan]),
        pd.CategoricalIndex(["a", "b", "a"]),
        pd.Categorical(["b", None, "a"], categories=["b", "a"], ordered=True),
        pd.Series(["a", None], dtype="string", name="x"),
        pd.Series(pd.to_datetime(["2020-01-01", None])),
        pd.DataFrame({"train": [1.0, np.nan]}, index=pd.Index([0, 1], name="epoch")),
        pd.DataFrame({"a": np.array([1.5, None], object), "b": pd.array([1, None], "Int64")}),
        pd.DataFrame([[1, 2]], columns=["same", "same"]),
        pd.DataFrame({}),
        *(pd.array([1, None], dtype=dtype) for dtype in NULLABLE if dtype != "boolean"),
        pd.array([True, None], dtype="boolean"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tables_come_back(value):
    assert same(value, returned(value)) or value == returned(value)


def test_dictionaries_of_any_class_become_plain():
    fields = defaultdict(dict, {"X": OrderedDict(n_obs=1)})
    found = returned(fields)
    assert found == {"X": {"n_obs": 1}}
    assert type(found) is type(found["X"]) is dict


def test_activations_come_back_by_name():
    for value in NAMED.values():
        assert returned(value) is value


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda x: x,
        1j,
        b"x",
        torch.nn.Linear(1, 1),
        np.zeros(2, complex),
        pd.Timestamp("2020"),
        int,
    ],
)
def test_another_type_is_refused_by_its_path(value):
    with pytest.raises(TypeError, match=r"`model\['kwargs'\]\[1\]` is .*Convert the value"):
        encode({"kwargs": [0, value]}, "model")
    inner = np.array([None, 1], dtype=object)
    inner[0] = value
    with pytest.raises(TypeError, match=r"`x\[0\]` is "):
        encode(inner, "x")


@pytest.mark.parametrize(
    "value",
    [
        {"@eval": "1"},
        {"@tuple": [], "x": 1},
        {"@array": {"dtype": "O", "shape": [1], "values": [1]}},
        {"@array": {"dtype": "os.system", "shape": [1], "values": [1]}},
        {"@array": {"dtype": "<i8", "shape": [10**9], "values": [1]}},
        {"@nullable": {"dtype": "object", "values": [1]}},
        {"@named": "os.system"},
        {"@named": "torch.load"},
    ],
)
def test_reading_makes_known_types_only(value):
    with pytest.raises((ValueError, KeyError)):
        decode(value)
