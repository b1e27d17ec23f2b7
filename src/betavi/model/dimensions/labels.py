"""Labels of cells, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from betavi._tables import close_matches

if TYPE_CHECKING:
    import numpy as np
    from scvi._types import AnnOrMuData


def labels_of(adata: AnnOrMuData, labels_key: Any, cells: np.ndarray) -> pd.Series:
    """Return the labels of some cells as text, with NaN for cells without a label."""
    if not isinstance(labels_key, str) or labels_key not in adata.obs:
        columns = adata.obs.columns
        raise KeyError(
            f"The object has no column obs[{labels_key!r}], given as `labels_key`. "
            f"{close_matches(labels_key, columns)}"
        )
    labels = adata.obs[labels_key].iloc[cells]
    if pd.api.types.is_float_dtype(labels) and not (labels.dropna() % 1 == 0).all():
        raise TypeError(
            f"obs[{labels_key!r}], given as `labels_key`, has fractions, not labels. Name a column "
            "of categories."
        )
    if labels.nunique() < 2:
        raise ValueError(
            f"obs[{labels_key!r}], given as `labels_key`, has {labels.nunique()} label(s) in "
            "these cells, but a dimension can only separate two or more. Name another column."
        )
    return labels.astype(str).where(labels.notna())
