"""What the scripts that draw these pages' pictures share."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import scvi
import torch

import betavi
from betavi.pl._style import STYLE

if TYPE_CHECKING:
    import scanpy as sc

IMAGES = Path(__file__).parent / "images"
DPI = 110
QUIET = {"show_progress": False}


def begin() -> None:
    """Set style and threads."""
    mpl.use("Agg")
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(2)
    mpl.rcParams.update(STYLE)
    IMAGES.mkdir(exist_ok=True)


def save(name: str, axes: Any) -> None:
    """Write the figure of some axes."""
    figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
    figure.savefig(IMAGES / f"{name}.png", dpi=DPI, bbox_inches="tight")
    plt.close(figure)


def trained(
    adata: sc.AnnData,
    max_epochs: int,
    train_size: float = 0.75,
    validation_size: float | None = None,
    **kwargs: Any,
) -> betavi.BetaVI:
    scvi.settings.seed = 0
    betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    model = betavi.BetaVI(adata, **kwargs)
    model.train(
        max_epochs,
        train_size=train_size,
        validation_size=validation_size,
        enable_progress_bar=False,
    )
    return model
