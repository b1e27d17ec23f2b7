"""Datamodule of cells in files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS, settings
from scvi.dataloaders import AnnDataLoader

from betavi.data.lazy import read_lazy
from betavi.data.split import DataSplitter

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np
    from scvi.model.base import BaseModelClass


class StoreDataModule(DataSplitter):
    """Cells in files, as a datamodule of scvi-tools.

    Use :func:`read_lazy` if you call the model yourself. Use this class for code that expects a
    datamodule: ``BetaVI(registry=datamodule.registry)``, ``train(datamodule=datamodule)``, and
    ``dataloader=datamodule.inference_dataloader()``.

    Parameters
    ----------
    model_class
        :class:`betavi.BetaVI` or :class:`betavi.JointVI`.
    paths
        Files, see :func:`read_lazy`. Or an AnnData or MuData.
    train_size, validation_size
        Share of the cells for training and for validation, as in ``train()``. Held-out cells of a file are a
        random sample of blocks of up to 64 consecutive cells.
    batch_size
        Number of cells in a minibatch. None means ``scvi.settings.batch_size``.
    reference
        Model that reads these cells. Its features, batches and labels apply, and its arguments of the setup.
    **setup
        Arguments of ``setup_anndata`` or ``setup_mudata``, such as ``batch_key``.

    Raises
    ------
    TypeError
        If the files hold another kind of object than the model reads.
    ValueError, KeyError, FileNotFoundError
        See :func:`read_lazy` and ``setup_anndata``.

    Attributes
    ----------
    adata
        The AnnData or MuData. It is set up, so ``BetaVI(datamodule.adata)`` is a model of these cells.
    registry
        Registry of the model's fields.

    Examples
    --------
    >>> import betavi
    >>> from tempfile import mkdtemp
    >>> path = f"{mkdtemp()}/cells.h5ad"
    >>> betavi.datasets.simulate_counts(n_cells=60, n_genes=20).write_h5ad(path)
    >>> cells = betavi.data.StoreDataModule(betavi.BetaVI, path, batch_key="batch")
    >>> model = betavi.BetaVI(registry=cells.registry, n_latent=2)
    >>> model.train(max_epochs=1, datamodule=cells, enable_progress_bar=False)
    >>> model.get_latent_representation(dataloader=cells.inference_dataloader()).shape
    (60, 2)
    """

    def __init__(
        self,
        model_class: type[BaseModelClass],
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | AnnData | MuData,
        *,
        train_size: float | None = None,
        validation_size: float | None = None,
        batch_size: int | None = None,
        reference: BaseModelClass | None = None,
        **setup: Any,
    ) -> None:
        data = paths if isinstance(paths, AnnData | MuData) else read_lazy(paths)
        name = "setup_mudata" if hasattr(model_class, "setup_mudata") else "setup_anndata"
        if reference is not None:
            registry = reference.registry_
            setup = {**registry["setup_args"], "source_registry": registry, **setup}
        getattr(model_class, name)(data, **setup)
        manager = model_class._get_most_recent_anndata_manager(data, required=True)
        super().__init__(
            manager,
            train_size=train_size,
            validation_size=validation_size,
            batch_size=batch_size or settings.batch_size,
        )
        self.adata, self.registry = data, manager.registry

    def inference_dataloader(
        self, indices: Sequence[int] | np.ndarray | None = None, batch_size: int | None = None
    ) -> AnnDataLoader:
        """Return minibatches of the cells at some positions, in this order. None means all cells."""
        size = batch_size or self.batch_size
        return AnnDataLoader(self.adata_manager, indices=indices, batch_size=size, shuffle=False)

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return int(self.adata.n_obs)

    @property
    def n_vars(self) -> int:
        """Number of features, of all modalities together."""
        return int(self.adata.n_vars)

    @property
    def n_batch(self) -> int:
        """Number of batches."""
        return int(self.adata_manager.summary_stats.n_batch)

    @property
    def n_labels(self) -> int:
        """Number of labels."""
        return int(self.adata_manager.summary_stats.n_labels)

    n_samples = 1
    """Number of samples, which our models do not use."""

    @property
    def batch_labels(self) -> np.ndarray:
        """Names of the batches, ``(n_batch,)``."""
        return self._names(REGISTRY_KEYS.BATCH_KEY)

    @property
    def label_keys(self) -> np.ndarray:
        """Names of the labels, ``(n_labels,)``."""
        return self._names(REGISTRY_KEYS.LABELS_KEY)

    @property
    def labels(self) -> np.ndarray:
        """Label of each cell, ``(n_cells,)``."""
        codes = self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)
        return self.label_keys[codes.ravel()]

    def _names(self, key: str) -> np.ndarray:
        state = self.adata_manager.get_state_registry(key)
        return pd.Index(state["categorical_mapping"]).to_numpy()
