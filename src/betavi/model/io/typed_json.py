"""Plain values as JSON that keeps their types.

JSON has text, finite numbers, True, False, None, lists, and dictionaries with text as keys. Each
other value is written as ``{"@TAG": ...}``, with a tag of :data:`TAGS`. Reading makes only values
of these types. It imports nothing by name and runs no code of the file.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

NUMERIC = re.compile(r"[<>|=]([biufU])\d+|[<>]([mM])8(\[\w+\])?")
"""Data types of NumPy that are written with their values."""

NULLABLE = (
    "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64",
    "boolean",
)  # fmt: skip
"""Nullable data types of pandas."""

NAMED: dict[str, Any] = {
    "torch.exp": torch.exp,
    "torch.sigmoid": torch.sigmoid,
    "torch.nn.functional.softplus": nn.functional.softplus,
    **{
        f"torch.nn.{kind.__name__}": kind
        for kind in (
            nn.ELU, nn.GELU, nn.Identity, nn.LeakyReLU, nn.Mish, nn.ReLU, nn.SELU, nn.Sigmoid,
            nn.SiLU, nn.Softplus, nn.Tanh,
        )
    },
}  # fmt: skip
"""Functions and classes that a model may be made with, and that are written by their name."""

REMEDY = (
    "A model file holds numbers, text, None, lists, tuples, sets, dictionaries, tensors, arrays of numbers "
    "and text, and tables of pandas. Convert the value before you make the model."
)


class Tag(NamedTuple):
    """One tag: the values that it stands for, and both directions."""

    matches: Callable[[Any], bool]
    encode: Callable[[Any, str], Any]
    decode: Callable[[Any], Any]


def encode(value: Any, path: str) -> Any:
    """Return a value as JSON can hold it. ``path`` names the value in errors.

    A dictionary of any class becomes a plain one. Raises a TypeError for a type without a tag.
    """
    if value is None or isinstance(value, bool) or type(value) is int:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, str) and not isinstance(value, np.generic):
        return str.__str__(value)
    if type(value) is list:
        return [encode(part, f"{path}[{i}]") for i, part in enumerate(value)]
    if isinstance(value, dict) and all(_is_plain_key(key) for key in value):
        return {key: encode(part, f"{path}[{key!r}]") for key, part in value.items()}
    for name, tag in TAGS.items():
        if tag.matches(value):
            return {f"@{name}": tag.encode(value, path)}
    raise TypeError(f"`{path}` is {type(value).__name__} {_shown(value)}. {REMEDY}")


def decode(value: Any) -> Any:
    """Return the value that was encoded. Raises a ValueError if a tag is unknown."""
    if isinstance(value, list):
        return [decode(part) for part in value]
    if not isinstance(value, dict):
        return value
    tagged = [key for key in value if key.startswith("@")]
    if not tagged:
        return {key: decode(part) for key, part in value.items()}
    name = tagged[0][1:]
    if len(value) > 1 or name not in TAGS:
        raise ValueError(f"the tag '@{name}' is unknown")
    return TAGS[name].decode(value[tagged[0]])


def _is_plain_key(key: Any) -> bool:
    return type(key) is str and not key.startswith("@")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _encode_all(values: Any, path: str) -> list[Any]:
    return [encode(value, f"{path}[{i}]") for i, value in enumerate(values)]


def _encode_pairs(value: dict[Any, Any], path: str) -> list[list[Any]]:
    return [[encode(k, f"{path}.keys()"), encode(v, f"{path}[{k!r}]")] for k, v in value.items()]


def _encode_array(array: np.ndarray | np.generic, path: str) -> dict[str, Any]:
    array = np.asarray(array)
    if array.dtype.kind == "T":
        array = array.astype(object)
    name = array.dtype.str if array.dtype.kind != "O" else "object"
    if name == "object":
        values = _encode_all(array.ravel(), path)
    elif not NUMERIC.fullmatch(name):
        raise TypeError(f"`{path}` is an array of type {array.dtype}. {REMEDY}")
    elif array.dtype.kind in "mM":
        values = array.ravel().view(np.int64).tolist()
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        values = _encode_all(array.ravel().tolist(), path)
    else:
        values = array.ravel().tolist()
    return {"dtype": name, "shape": list(array.shape), "values": values}


def _decode_array(value: dict[str, Any]) -> np.ndarray:
    name, values, shape = value["dtype"], decode(value["values"]), tuple(value["shape"])
    if name == "object":
        found = np.empty(len(values), dtype=object)
        found[:] = values
        return found.reshape(shape)
    if not NUMERIC.fullmatch(name):
        raise ValueError(f"the array type {name!r} is unknown")
    dtype = np.dtype(name)
    if dtype.kind in "mM":
        return np.array(values, dtype=np.int64).view(dtype).reshape(shape)
    return np.array(values, dtype=dtype).reshape(shape)


def _decode_scalar(value: dict[str, Any]) -> Any:
    return _decode_array(value).reshape(())[()]


def _is_nullable(value: Any) -> bool:
    return isinstance(value, pd.api.extensions.ExtensionArray) and str(value.dtype) in NULLABLE


def _encode_extension(values: Any, path: str) -> dict[str, Any]:
    return {"dtype": str(values.dtype), "values": _encode_all(values.astype(object), path)}


def _decode_nullable(value: dict[str, Any]) -> Any:
    if value["dtype"] not in NULLABLE:
        raise ValueError(f"the data type {value['dtype']!r} is unknown")
    return pd.array(decode(value["values"]), dtype=value["dtype"])


def _is_text(value: Any) -> bool:
    return isinstance(value, pd.api.extensions.ExtensionArray) and isinstance(
        value.dtype, pd.StringDtype
    )


def _decode_text(value: dict[str, Any]) -> Any:
    # pandas before 3 has no type "str", and keeps text in arrays of objects
    is_old = value["dtype"] == "str" and int(pd.__version__.split(".")[0]) < 3
    if is_old:
        return _decode_array({"dtype": "object", "shape": [-1], "values": value["values"]})
    return pd.array(decode(value["values"]), dtype="str" if value["dtype"] == "str" else "string")


def _encode_categorical(value: pd.Categorical, path: str) -> dict[str, Any]:
    categories = encode(value.categories, f"{path}.categories")
    return {"codes": value.codes.tolist(), "categories": categories, "ordered": value.ordered}


def _decode_categorical(value: dict[str, Any]) -> pd.Categorical:
    categories, ordered = decode(value["categories"]), bool(value["ordered"])
    return pd.Categorical.from_codes(value["codes"], categories, ordered=ordered)


def _column(values: pd.Series | pd.Index, path: str) -> Any:
    """Return the values of a column or an index, encoded in pandas' or NumPy's type."""
    own = values.array
    is_pandas = _is_nullable(own) or _is_text(own) or isinstance(own, pd.Categorical)
    return encode(own if is_pandas else values.to_numpy(), path)


def _encode_index(value: pd.Index, path: str) -> dict[str, Any]:
    return {"name": encode(value.name, f"{path}.name"), "values": _column(value, path)}


def _decode_index(value: dict[str, Any]) -> pd.Index:
    values = decode(value["values"])
    return pd.Index(values, dtype=values.dtype, name=decode(value["name"]))


def _encode_series(value: pd.Series, path: str) -> dict[str, Any]:
    name, index = encode(value.name, f"{path}.name"), encode(value.index, f"{path}.index")
    return {"name": name, "index": index, "values": _column(value, path)}


def _decode_series(value: dict[str, Any]) -> pd.Series:
    values, index = decode(value["values"]), decode(value["index"])
    return pd.Series(values, index, values.dtype, decode(value["name"]))


def _encode_frame(value: pd.DataFrame, path: str) -> dict[str, Any]:
    labels, rows = encode(value.columns, f"{path}.columns"), encode(value.index, f"{path}.index")
    columns = [_column(value.iloc[:, i], f"{path}.iloc[:, {i}]") for i in range(value.shape[1])]
    return {"columns": labels, "index": rows, "values": columns}


def _decode_frame(value: dict[str, Any]) -> pd.DataFrame:
    index, columns = decode(value["index"]), decode(value["values"])
    series = {i: pd.Series(part, index, part.dtype) for i, part in enumerate(columns)}
    found = pd.DataFrame(series, index=index)
    found.columns = decode(value["columns"])
    return found


def _encode_named(value: Any, _path: str) -> str:
    return next(name for name, known in NAMED.items() if known is value)


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


TAGS: dict[str, Tag] = {
    "float": Tag(_is(float), lambda value, _: repr(value), float),
    "tuple": Tag(_is(tuple), _encode_all, lambda value: tuple(decode(value))),
    "set": Tag(_is(set), _encode_all, lambda value: set(decode(value))),
    "dict": Tag(
        lambda value: isinstance(value, dict), _encode_pairs, lambda value: dict(decode(value))
    ),
    "array": Tag(_is(np.ndarray), _encode_array, _decode_array),
    "tensor": Tag(
        _is(torch.Tensor),
        lambda value, path: _encode_array(value.detach().cpu().numpy(), path),
        lambda value: torch.from_numpy(_decode_array(value)),
    ),
    "scalar": Tag(lambda value: isinstance(value, np.generic), _encode_array, _decode_scalar),
    "missing": Tag(lambda value: value is pd.NA, lambda *_: None, lambda _: pd.NA),
    "nullable": Tag(_is_nullable, _encode_extension, _decode_nullable),
    "text": Tag(_is_text, _encode_extension, _decode_text),
    "categorical": Tag(_is(pd.Categorical), _encode_categorical, _decode_categorical),
    "index": Tag(
        lambda value: isinstance(value, pd.Index) and value.nlevels == 1,
        _encode_index,
        _decode_index,
    ),
    "series": Tag(_is(pd.Series), _encode_series, _decode_series),
    "frame": Tag(_is(pd.DataFrame), _encode_frame, _decode_frame),
    "named": Tag(
        lambda value: any(known is value for known in NAMED.values()),
        _encode_named,
        lambda value: NAMED[value],
    ),
}
"""Tags of values that JSON has no form for, in the order in which they are tried."""
