"""Objects like a model's, of one modality, with other counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from betavi.data import COUNTS
from betavi.model.denoising.retrain import RetrainMixin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scipy import sparse


class RetrainSingleMixin(RetrainMixin):
    """Of :class:`~betavi.BetaVI`."""

    def _with_counts(self, counts: Mapping[str, sparse.csr_matrix]) -> AnnData:
        args = dict(self.adata_manager.registry["setup_args"])
        adata = AnnData(counts[COUNTS], obs=self.adata.obs.copy(), var=self.adata.var[[]].copy())
        type(self).setup_anndata(adata, **args | {"layer": None, "keep_empty_cells": True})
        return adata

    def _cells_of(self, name: str) -> np.ndarray:
        return np.arange(self.adata.n_obs)
