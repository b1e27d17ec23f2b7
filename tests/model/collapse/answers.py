"""Answers of abilities as plain arrays, to be compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from torch.distributions import Distribution

from betavi.diagnostics import CountScore, ExplainedDimensions, LatentDensity


def plain(answer):
    """Return the numbers of an answer."""
    if isinstance(answer, pd.DataFrame):
        return answer.select_dtypes("number").to_numpy()
    if isinstance(answer, MuData):
        return plain(answer.mod)
    if isinstance(answer, AnnData):
        return answer.X.toarray() if sparse.issparse(answer.X) else answer.X
    if isinstance(answer, LatentDensity):
        return answer.means
    if isinstance(answer, ExplainedDimensions):
        return plain(answer.dimensions)
    if isinstance(answer, CountScore):
        return np.array(list(answer.row().values()))
    if hasattr(answer, "values") and hasattr(answer, "keys"):
        return np.concatenate([np.ravel(plain(value)) for value in answer.values()])
    if hasattr(answer, "todense"):
        return answer.todense()
    if isinstance(answer, Distribution):
        return answer.mean.numpy()
    return np.asarray(answer)
