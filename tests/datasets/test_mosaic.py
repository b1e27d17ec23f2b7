from __future__ import annotations

import subprocess
import zipfile

import pooch
import pytest

from betavi.datasets import mosaic, pbmc_mosaic


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    return tmp_path / "betavi"


def test_real_cells_with_rna_protein_or_both():
    try:
        mdata = pbmc_mosaic()
    except ConnectionError as error:
        pytest.skip(str(error))
    assert mdata["rna"].shape == (1200, 500)
    assert mdata["adt"].shape == (1200, 224)
    assert mdata.n_obs == 1600
    assert mdata.obs[["batch", "celltype"]].notna().all(axis=None)
    assert (mdata["rna"].X.data % 1 == 0).all()


def test_without_a_network_the_message_says_what_to_do(empty_cache, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stderr="x\nERROR: no route to index")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(ConnectionError, match=r"scmidas==0.3.0.*no route to index.*pbmc_mosaic"):
        pbmc_mosaic()
    assert not list(empty_cache.glob("*.h5mu"))


def test_a_file_with_another_checksum_is_refused(empty_cache, monkeypatch):
    def run(command, **kwargs):
        folder = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{folder}/scmidas-0.3.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(mosaic.MEMBER, b"something else")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ValueError, match="hash"):
        pbmc_mosaic()
    assert not list(empty_cache.glob("*.h5mu"))
