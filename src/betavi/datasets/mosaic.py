"""Real cells from a package index."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import mudata
import pooch

if TYPE_CHECKING:
    from mudata import MuData

REQUIREMENT = "scmidas==0.3.0"
MEMBER = "scmidas/data/quickstart_pbmc_mosaic.h5mu"
SHA256 = "ba7e65819b77dca7cae0473043893a471920e25a07ee08bc91b3eb9fcc2e1cdd"


def pbmc_mosaic() -> MuData:
    """Return 1,600 blood cells with RNA, surface protein, or both.

    The file is part of the MIT-licensed package ``scmidas`` 0.3.0. On first use, pip downloads the
    package's wheel without installing it. The file is checked by its SHA-256 and cached.

    Returns
    -------
    Modalities ``rna`` (1,200 cells, 500 genes) and ``adt`` (1,200 cells, 224 proteins) with raw
    counts. ``obs["batch"]`` (4 batches) and ``obs["celltype"]`` for every cell.

    Raises
    ------
    ConnectionError
        If the file is not in the cache and pip cannot fetch it.
    NotADirectoryError, PermissionError
        If the folder of the cache cannot be written to.

    References
    ----------
    He et al. (2024), Mosaic integration and knowledge transfer of single-cell multimodal data with
    MIDAS.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.pbmc_mosaic()  # doctest: +SKIP
    >>> mdata["rna"].shape  # doctest: +SKIP
    (1200, 500)
    """
    folder = pooch.os_cache("betavi")
    try:
        path = pooch.retrieve(
            url=f"pip:{REQUIREMENT}",
            known_hash=f"sha256:{SHA256}",
            fname="pbmc_mosaic.h5mu",
            path=folder,
            downloader=_from_wheel,
        )
    except ConnectionError:
        # its message names the remedy already
        raise
    except OSError as error:
        raise type(error)(
            f"pbmc_mosaic() stores its file in the folder {folder}, but cannot write there. Set the "
            "environment variable XDG_CACHE_HOME to a folder that you can write to."
        ) from error
    with warnings.catch_warnings():
        # mudata warns of a new default that does not affect this file
        warnings.simplefilter("ignore", FutureWarning)
        return mudata.read_h5mu(path)


def _from_wheel(url: str, output_file: str, _pooch: object) -> None:
    """Fetch the wheel with the user's own pip, index and proxy, and extract the file."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--only-binary=:all:", "--dest", folder, url.removeprefix("pip:")],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise ConnectionError(
                f"pbmc_mosaic() needs the file {Path(MEMBER).name} from the package {REQUIREMENT}, "
                f"but pip could not download it ({reason}). Connect to a network and try again, or "
                f"copy the file to {pooch.os_cache('betavi')} as pbmc_mosaic.h5mu."
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            Path(output_file).write_bytes(wheel.read(MEMBER))
