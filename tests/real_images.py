"""Real microscope images for tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def real_image():
    """Read a real image by file name; skip where there are none."""
    folder = os.environ.get("BETAVI_DATA_DIR")
    if not folder:
        pytest.skip("BETAVI_DATA_DIR is not set, so there are no real images")

    def read(name: str) -> np.ndarray:
        path = Path(folder) / "images" / name
        if not path.exists():
            pytest.skip(f"BETAVI_DATA_DIR has no images/{name}")
        return np.asarray(Image.open(path))

    return read
