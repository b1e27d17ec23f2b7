"""Labels of cells, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from betavi.model.setup.check_obs import labels_column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from scvi._types import AnnOrMuData


def labels_of(adata: AnnOrMuData, labels_key: Any, cells: np.ndarray) -> pd.Series:
    """Return the labels of some cells as text, with NaN for cells without a label."""
    labels = labels_column(adata, labels_key, "The object").iloc[cells]
    if labels.nunique() < 2:
        raise ValueError(
            f"obs[{labels_key!r}], given as `labels_key`, has {labels.nunique()} label(s) in "
            "these cells, but a dimension can only separate two or more. Name another column."
        )
    return labels.astype(str).where(labels.notna())
