"""Files of a model, and reading them without running code of the files.

``model.safetensors`` has the tensors, ``model.json`` everything else, and ``adata.h5ad`` or
``mdata.h5mu`` the model's object. ``model.pt`` has copies for scvi-tools' own tools.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zipfile import BadZipFile

import safetensors.torch
from safetensors import SafetensorError
from scvi.model.base._save_load import _load_saved_files

from betavi.model.io.archive import inner_json, read_tensors, write_archive
from betavi.model.io.saved import Saved, digest, separate
from betavi.model.io.together import current, stamp
from betavi.model.io.typed_json import decode, encode

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from torch import Tensor

FORMAT, SCHEMA = "betavi model", 1
"""Name and version of the format of ``model.json``."""

JSON, TENSORS, ARCHIVE = "model.json", "model.safetensors", "model.pt"

N_TRIES = 5
"""Most reads of files that another process replaces at the same time."""

FAULTS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, RecursionError,
    OverflowError, EOFError, OSError, SafetensorError, BadZipFile, struct.error, zlib.error,
)  # fmt: skip
"""Errors that a damaged file causes."""

T = TypeVar("T")
"""Type of what is read."""


def writers_of(saved: Saved) -> dict[str, Callable[[Path], object]]:
    """Return functions that write the files of a model, by name."""
    text = _text(saved)
    return {
        TENSORS: lambda path: safetensors.torch.save_file(saved.tensors, path),
        JSON: lambda path: path.write_text(text, encoding="utf-8"),
        ARCHIVE: lambda path: write_archive(path, saved, text),
    }


def read(
    folder: str | os.PathLike[str], prefix: str | None = None, trust_pickle: bool = False
) -> Saved:
    """Read the files of a model.

    Raises a ValueError if the folder has no model, a file is damaged, or the model is a pickle and
    ``trust_pickle`` is False.
    """
    place, start = Path(folder), prefix or ""
    return unchanged(place, start, lambda: _read(place, start, trust_pickle))


def unchanged(place: Path, start: str, action: Callable[[], T]) -> T:
    """Return what an action reads, from the files of one save.

    It is repeated if a save in another process replaces the files between two reads.
    """
    for _ in range(N_TRIES):
        before = stamp(place, start)
        try:
            found = action()
        except (ValueError, FileNotFoundError):
            if stamp(place, start) == before:
                raise
        else:
            if stamp(place, start) == before:
                return found
    raise ValueError(
        f"The files of {place} changed during each of {N_TRIES} reads. Try again when no other "
        "process saves into this folder."
    )


def _read(place: Path, start: str, trust_pickle: bool) -> Saved:
    text, tensors, archive = (current(place, name, start) for name in (JSON, TENSORS, ARCHIVE))
    if text.is_file():
        model = _parsed(text, text.read_bytes())
        return _saved(text, model, _read_tensors(tensors), tensors)
    if not archive.is_file():
        raise ValueError(
            f"Failed to load model file at {text}. Neither this file nor {archive.name} exists. "
            "Pass the folder that save() wrote, and the same `prefix`."
        )
    with damage(archive):
        inner = inner_json(archive)
    if inner is not None:
        model = _parsed(archive, inner)
        with damage(archive):
            found = read_tensors(archive, model["tensors"])
        return _saved(archive, model, found, archive)
    if not trust_pickle:
        raise ValueError(
            f"{archive} is a pickle, which can run any code when it is opened. If you trust its "
            "author, load the model with load(..., trust_pickle=True). Or, rewrite the folder once "
            "in the format that runs no code: betavi.convert(old_folder, new_folder)"
        )
    with damage(archive):
        return _read_pickle(place, start)


def _text(saved: Saved) -> str:
    """Return the content of ``model.json``."""
    model = {
        "class": saved.class_name,
        "versions": saved.versions,
        "data": saved.data,
        "var_names": encode(saved.var_names, "var_names"),
        "attributes": {
            name: encode(value, f"model.{name}") for name, value in saved.attributes.items()
        },
        "tensors": {name: [str(x.dtype), list(x.shape)] for name, x in saved.tensors.items()},
        "sha256_of_tensors": digest(saved.tensors),
    }
    whole = {"format": FORMAT, "schema": SCHEMA, "sha256": _checksum(model), "model": model}
    return _dumped(whole)


def _dumped(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _checksum(model: Any) -> str:
    return hashlib.sha256(_dumped(model).encode()).hexdigest()


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    """Return what ``model.json`` says about the model, after checks of format and checksum."""
    with damage(path):
        whole = json.loads(content)
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise ValueError(
            f"{path} is damaged, or another program wrote it. Copy the folder again from its source, "
            "or pass the `prefix` of the model that betavi saved."
        )
    with damage(path):
        schema, checksum, model = whole["schema"], whole["sha256"], whole["model"]
    if schema != SCHEMA:
        raise ValueError(
            f"{path} has version {schema!r} of the format, but this version of betavi reads "
            f"version {SCHEMA}. Install the version of betavi that wrote the file, or a newer one."
        )
    with damage(path):
        if _checksum(model) != checksum:
            raise ValueError("the checksum of the settings differs")
        return dict(model)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(
            f"{path} is missing, which holds the weights of the model. Copy all files of the folder."
        )
    with damage(path):
        # from bytes, as a mapped file would stay open, and change with the file
        return dict(safetensors.torch.load(path.read_bytes()))


def _saved(path: Path, model: dict[str, Any], tensors: dict[str, Tensor], source: Path) -> Saved:
    with damage(source):
        if digest(tensors) != model["sha256_of_tensors"]:
            raise ValueError(f"the checksum of the weights is not that in {path.name}")
    with damage(path):
        attributes, names = decode(model["attributes"]), decode(model["var_names"])
        return Saved(attributes, names, tensors, model["data"], model["versions"])


def _read_pickle(folder: Path, prefix: str) -> Saved:
    """Unpickle a ``model.pt`` of betavi before the safe format, which can run code."""
    attributes, names, tensors, _ = _load_saved_files(
        str(folder), load_adata=False, prefix=prefix, map_location="cpu"
    )
    tensors.pop("pyro_param_store", None)
    saved = Saved(attributes, names, separate(tensors), versions={})
    # these files do not say whether the object was saved
    is_there = current(folder, saved.data_name, prefix).is_file()
    saved.data = saved.data_name if is_there else None
    return saved


@contextmanager
def damage(path: Path, faults: tuple[type[Exception], ...] = FAULTS) -> Iterator[None]:
    """Turn errors of reading a file into one that names the file and a remedy."""
    try:
        yield
    except faults as error:
        raise ValueError(
            f"{path} is damaged or cannot be read: {error}. Copy the folder again from its source, or "
            "save the model again."
        ) from error
