"""``model.pt``: a copy of a model for scvi-tools' own tools, which is read here without unpickling.

PyTorch's files are zip archives: tensors are entries of plain numbers, and a pickle says how to
join them. Our file also contains ``model.json``. With this entry, tensors are read directly. A hub
of scvi-tools downloads ``model.pt`` and the data, but no other file of a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, is_zipfile

import torch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from betavi.model.io.saved import Saved

ROOT = "archive"
"""Folder inside a file that PyTorch writes through an open file."""

INNER = f"{ROOT}/model.json"

DTYPES = {
    str(dtype): dtype
    for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
        torch.bfloat16, torch.float32, torch.float64,
    )
}  # fmt: skip
"""Types of tensors by name."""

FOR_SCVI = ("registry_", "init_params_", "is_trained_")
"""Attributes that scvi-tools' tools read."""


def write_archive(path: Path, saved: Saved, text: str) -> None:
    """Write tensors, some attributes as plain types, and the content of ``model.json``."""
    attributes = {name: _plain(saved.attributes[name]) for name in FOR_SCVI}
    content = {
        # PyTorch numbers the entries by the order of tensors that share no memory
        "model_state_dict": {name: tensor.clone() for name, tensor in saved.tensors.items()},
        "var_names": _plain(saved.var_names),
        "attr_dict": attributes,
    }
    with path.open("wb") as file:
        torch.save(content, file)
    with ZipFile(path, "a") as archive:
        archive.writestr(INNER, text)


def inner_json(path: Path) -> bytes | None:
    """Return the ``model.json`` inside a ``model.pt``. None for a file of another program."""
    if not is_zipfile(path):
        return None
    with ZipFile(path) as archive:
        return archive.read(INNER) if INNER in archive.namelist() else None


def read_tensors(path: Path, described: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a ``model.pt``, from their types and shapes by name."""
    with ZipFile(path) as archive:
        return {
            name: _tensor(archive.read(f"{ROOT}/data/{number}"), DTYPES[dtype], shape)
            for number, (name, (dtype, shape)) in enumerate(described.items())
        }


def _tensor(content: bytes, dtype: torch.dtype, shape: list[int]) -> Tensor:
    # PyTorch makes no tensor from an empty buffer
    flat = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0)
    return flat.to(dtype).reshape(shape)


def _plain(value: Any) -> Any:
    """Return a value in types that ``torch.load(weights_only=True)`` reads."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set):
        return [_plain(part) for part in value]
    is_plain = value is None or type(value) in (bool, int, float, str)
    return value if is_plain else str(value)
