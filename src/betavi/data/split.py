"""Split of the cells into training, validation and test cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import dataloaders, settings

from betavi.data.file_loader import shuffled_blocks, split_order
from betavi.data.loader import ResidentCells, fits, in_order, shuffled, stays_compressed
from betavi.kernels import dense
from betavi.kernels.sparse import is_compressed

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data.minibatches import CellManager


# scvi-tools checks early stopping against the validation cells only if the class has this name
class DataSplitter(dataloaders.DataSplitter):
    """scvi-tools' splitter, with minibatches from :class:`CellManager`.

    Parameters
    ----------
    adata_manager
        Manager of the object to split.
    **kwargs
        scvi-tools' options, such as ``train_size``.

    Raises
    ------
    ValueError
        If no cell is left for training.

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
                f"The split leaves none of the {adata_manager.adata.n_obs} cells for training. "
                "Hold out fewer cells: pass a larger `train_size` to train()."
            )

    def setup(self, stage: str | None = None) -> None:
        """Split the cells. Held-out cells of a file are a random sample of small blocks."""
        super().setup(stage)
        n_cells = self.adata_manager.adata.n_obs
        if self.external_indexing or not self.shuffle_set_split:
            return
        if not self.adata_manager.create_torch_dataset(np.zeros(0, dtype=np.int64)).in_file:
            return
        order = split_order(n_cells, np.random.default_rng(settings.seed))
        parts = np.split(order, np.cumsum([self.n_val, self.n_train]))
        self.val_idx, self.train_idx, self.test_idx = map(np.sort, parts)

    def train_dataloader(self) -> Any:
        """Return minibatches of the training cells, shuffled in every epoch.

        The fields stay on a GPU if they fit there and no loader option is set. Cells of a file are
        read in blocks.
        """
        options = {key for key, value in self.data_loader_kwargs.items() if value}
        has_options = options - {"batch_size"} or self.load_sparse_tensor or self.pin_memory
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        dataset = self.adata_manager.create_torch_dataset(self.train_idx)
        if self.trainer and self.trainer.overfit_batches:
            return in_order(dataset, self.batch_size)
        if dataset.in_file:
            dataset.load_sparse_tensor = True
            return shuffled_blocks(dataset, self.batch_size, self.drop_last)
        if not (has_options or settings.dl_num_workers) and fits(dataset, device):
            self._resident = ResidentCells(dataset, device)
            return shuffled(self._resident, self.batch_size, self.drop_last)
        # only nonzeros are passed on, also from a file
        before, self.load_sparse_tensor = self.load_sparse_tensor, True
        try:
            return super().train_dataloader()
        finally:
            self.load_sparse_tensor = before

    def val_dataloader(self) -> Any:
        """Return minibatches of the validation cells; no loader without validation cells."""
        return super().val_dataloader() if len(self.val_idx) else []

    def teardown(self, stage: str) -> None:
        """Free the device memory, which the trainer of a trained model would keep."""
        super().teardown(stage)
        if self._resident is not None:
            self._resident.parts.clear()

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> Any:
        """Make CSR tensors dense, unless the model is faster with CSR tensors."""
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
