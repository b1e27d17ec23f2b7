"""The split into training, validation and test cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi import dataloaders, settings

from betavi.data.loader import ResidentCells, fits, shuffled, stays_compressed
from betavi.kernels import dense, is_compressed

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data.minibatches import CellManager


# The name is scvi-tools' own: its run checks early stopping against the validation cells only of
# a splitter that is called so.
class DataSplitter(dataloaders.DataSplitter):
    """scvi-tools' split, with minibatches cut whole from the counts by :class:`CellManager`.

    Parameters
    ----------
    adata_manager, **kwargs
        The manager of the object to split, and scvi-tools' options, such as ``train_size``.

    Raises
    ------
    ValueError
        If no cell is left to train on.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=50, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> from betavi.data import DataSplitter
    >>> splitter = DataSplitter(betavi.BetaVI(adata).adata_manager, train_size=0.9, batch_size=20)
    >>> splitter.n_train, splitter.n_val, splitter.smallest_minibatch
    (45, 5, 5)
    """

    load_sparse_tensor: bool

    def __init__(self, adata_manager: CellManager, **kwargs: Any) -> None:
        super().__init__(adata_manager, **kwargs)
        self._resident: ResidentCells | None = None
        if self.n_train < 1:
            raise ValueError(
                f"None of {adata_manager.adata.n_obs} cells is left to train on. Hold out fewer "
                "cells, with train_size and validation_size."
            )

    def train_dataloader(self) -> Any:
        """Return minibatches of the training cells, in a new order in every epoch.

        Their fields stay where the model is, if they fit and no option of the loader is set.
        """
        wishes = {key for key, value in self.data_loader_kwargs.items() if value}
        has_wishes = wishes - {"batch_size"} or self.load_sparse_tensor or self.pin_memory
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        dataset = self.adata_manager.create_torch_dataset(self.train_idx)
        if not (has_wishes or settings.dl_num_workers) and fits(dataset, device):
            self._resident = ResidentCells(dataset, device)
            return shuffled(self._resident, self.batch_size, self.drop_last)
        # from a file, too, only nonzeros are handed over
        before, self.load_sparse_tensor = self.load_sparse_tensor, True
        try:
            return super().train_dataloader()
        finally:
            self.load_sparse_tensor = before

    def teardown(self, stage: str) -> None:
        """Free the device's memory, which the trainer of a trained model would keep."""
        super().teardown(stage)
        if self._resident is not None:
            self._resident.parts.clear()

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> Any:
        """Make CSR tensors dense, unless the model is faster without their zeros."""
        for key, value in batch.items():
            if is_compressed(value) and not stays_compressed(
                value.device, value.values().numel(), value.shape
            ):
                batch[key] = dense(value)
        return batch

    @property
    def batch_size(self) -> int:
        """Number of cells in every minibatch but the last."""
        return int(self.data_loader_kwargs.get("batch_size") or settings.batch_size)

    @property
    def smallest_minibatch(self) -> int:
        """Number of cells in the last training minibatch."""
        rest = 0 if self.drop_last else self.n_train % self.batch_size
        return rest or self.batch_size
