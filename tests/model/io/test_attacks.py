"""Opening a folder runs no code, whichever file of it is a prepared pickle."""

from __future__ import annotations

import pickle
import shutil
from contextlib import suppress
from zipfile import ZipFile

import h5py
import numpy as np
import pytest
import torch
from scvi.model.base._save_load import _load_saved_files

from betavi import BetaVI, JointVI, convert
from tests.model.io.conftest import SMALL, simulated

CLASSES = {"BetaVI": BetaVI, "JointVI": JointVI}


class Attack:
    """An object that leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


@pytest.fixture(scope="module", params=sorted(CLASSES))
def clean(request, tmp_path_factory):
    """Class of a model, its object, and a folder with the saved model."""
    folder = tmp_path_factory.mktemp("clean") / request.param
    data = simulated(request.param)
    CLASSES[request.param](data, **SMALL).save(folder, save_anndata=True)
    return CLASSES[request.param], data, folder


def prepare_query(cls, data, folder):
    if cls is BetaVI:
        return cls.prepare_query_anndata(data.copy(), folder, inplace=False)
    return cls.prepare_query_mudata(data, folder)


ENTRIES = {
    "load": lambda cls, data, folder: cls.load(folder),
    "load_registry": lambda cls, data, folder: cls.load_registry(folder),
    "load_query_data": lambda cls, data, folder: cls.load_query_data(data.copy(), folder),
    "prepare_query": prepare_query,
}


def pickled_by_torch(attack, path):
    torch.save({"model_state_dict": {}, "var_names": [], "attr_dict": {"registry_": attack}}, path)


def pickled(attack, path):
    path.write_bytes(pickle.dumps(attack))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("write", [pickled_by_torch, pickled])
@pytest.mark.parametrize("place", ["alone", "beside clean files"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_prepared_pickle_is_not_opened(clean, tmp_path, entry, place, write):
    """The 16 cases of four calls, two classes and two places, and each with two kinds of pickle."""
    cls, data, source = clean
    folder, mark = tmp_path / "folder", tmp_path / "mark"
    shutil.copytree(source, folder)
    write(Attack(mark), folder / "model.pt")
    if place == "alone":
        for name in ("model.json", "model.safetensors"):
            (folder / name).unlink()
        with pytest.raises(ValueError, match=r"model\.pt is a pickle.*trust_pickle=True.*convert"):
            ENTRIES[entry](cls, data, str(folder))
    else:
        assert ENTRIES[entry](cls, data, str(folder)) is not None
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["alone", "beside clean files"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_the_same_pickle_runs_in_the_reader_of_scvi_tools(
    clean, tmp_path, monkeypatch, entry, place
):
    """The same 16 cases with the reader that betavi 0.1 used."""
    cls, data, source = clean
    folder, mark = tmp_path / "folder", tmp_path / "mark"
    shutil.copytree(source, folder)
    pickled_by_torch(Attack(mark), folder / "model.pt")
    if place == "alone":
        for name in ("model.json", "model.safetensors"):
            (folder / name).unlink()

    def read(dir_path, *args, **kwargs):
        return _load_saved_files(str(dir_path), load_adata=False, map_location="cpu")

    for module in ("loading", "files"):
        monkeypatch.setattr(f"betavi.model.io.{module}.read", read)
    with pytest.raises((AttributeError, TypeError, ValueError)):
        ENTRIES[entry](cls, data, str(folder))
    assert mark.exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_prepared_copy_of_a_model_is_not_opened(clean, tmp_path, entry):
    """The file is whole for betavi, and its pickle, which betavi leaves alone, runs code."""
    cls, data, source = clean
    folder, mark = tmp_path / "folder", tmp_path / "mark"
    folder.mkdir()
    shutil.copy(source / ("adata.h5ad" if cls is BetaVI else "mdata.h5mu"), folder)
    with ZipFile(source / "model.pt") as old, ZipFile(folder / "model.pt", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, pickle.dumps(Attack(mark)) if name.endswith(".pkl") else content)
    assert ENTRIES[entry](cls, data, str(folder)) is not None
    assert not mark.exists()
    with suppress(Exception):
        torch.load(folder / "model.pt", weights_only=False)
    assert mark.exists()


def test_the_attack_would_run(clean, tmp_path):
    """The prepared file does run code where it is opened with the reader's consent."""
    cls, _, _ = clean
    pickled_by_torch(Attack(tmp_path / "mark"), tmp_path / "model.pt")
    with pytest.raises((AttributeError, TypeError, ValueError)):
        cls.load(tmp_path, trust_pickle=True)
    assert (tmp_path / "mark").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "model.saving", "data"])
def test_a_pickle_under_any_name_is_not_opened(clean, tmp_path, entry, name):
    cls, data, source = clean
    folder, mark = tmp_path / "folder", tmp_path / "mark"
    shutil.copytree(source, folder)
    name = ("adata.h5ad" if cls is BetaVI else "mdata.h5mu") if name == "data" else name
    pickled(Attack(mark), folder / name)
    reads_data = entry == "load"
    if name.startswith("model") or reads_data:
        with pytest.raises(ValueError, match=rf"{name}.*(damaged|cannot be read)"):
            ENTRIES[entry](cls, data, str(folder))
    else:
        ENTRIES[entry](cls, data, str(folder))
    assert not mark.exists()


def test_a_pickle_inside_the_object_is_not_opened(tmp_path):
    """HDF5 holds bytes, which anndata never unpickles."""
    mark, folder = tmp_path / "mark", tmp_path / "model"
    attack = pickle.dumps(Attack(mark))
    data = simulated("BetaVI")
    BetaVI(data, **SMALL).save(folder, save_anndata=True)
    with h5py.File(folder / "adata.h5ad", "r+") as file:
        file["uns"].create_dataset("bytes", data=np.void(attack))
        file["uns/bytes"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        file.attrs["CLASS"] = np.void(attack)
        values = file["X"].attrs if "encoding-type" in file["X"].attrs else file.attrs
        values["pickled"] = np.void(attack)
    assert bytes(BetaVI.load(folder).adata.uns["bytes"]).startswith(attack[:10])
    assert not mark.exists()


def test_a_file_names_no_other_method_for_the_setup(clean, tmp_path):
    cls, data, source = clean
    from betavi.model.io.files import read, writers_of

    saved = read(source)
    registry = saved.attributes["registry_"]
    registry["setup_method_name"] = "load"
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, write in writers_of(saved).items():
        write(folder / name)
    for entry in ENTRIES.values():
        with pytest.raises(ValueError, match="setup method 'load' is unknown"):
            entry(cls, data, folder)


def test_other_ways_in(clean, tmp_path):
    """Methods of scvi-tools that unpickle are replaced."""
    cls, data, _ = clean
    pickled_by_torch(Attack(tmp_path / "mark"), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="is a pickle"):
        cls.view_setup_args(tmp_path)
    with pytest.raises(NotImplementedError, match=r"betavi\.convert"):
        cls.convert_legacy_save(tmp_path, tmp_path / "new")
    name = "prepare_query_mudata" if cls is BetaVI else "prepare_query_anndata"
    with pytest.raises(TypeError, match=name):
        getattr(cls, name)(data, str(tmp_path))
    assert not (tmp_path / "mark").exists()
    with pytest.raises((AttributeError, TypeError, ValueError)):
        convert(tmp_path, tmp_path / "new")
    assert (tmp_path / "mark").exists()
