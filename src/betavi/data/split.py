"""Split of the cells into training, validation and test cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import dataloaders, settings

from betavi.data.file_loader import FileMinibatches, split_order
from betavi.data.loader import ResidentCells, fits, in_order, shuffled, stays_compressed
from betavi.data.shares import Shares, in_shares, loader_of_share
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
    >>> splitter.n_train, splitter.n_val, splitter.smallest_minibatch()
    (45, 5, 5)
    """

    load_sparse_tensor: bool

    def __init__(self, adata_manager: CellManager, **kwargs: Any) -> None:
        # scvi-tools' sampler of shares would see some cells twice
        kwargs.pop("distributed_sampler", None)
        super().__init__(adata_manager, **kwargs)
        self._resident: ResidentCells | None = None
        if self.n_train < 1:
            raise ValueError(
                f"The split leaves none of the {adata_manager.adata.n_obs} cells for training. "
                "Hold out fewer cells: pass a larger `train_size` to train()."
            )

    def setup(self, stage: str | None = None) -> None:
        """Split the cells, once. All processes use the split of the first process."""
        if not hasattr(self, "train_idx"):
            super().setup(stage)
            self._hold_out_blocks()
        if self.n_processes > 1:
            names = ("train_idx", "val_idx", "test_idx")
            seed = int(torch.empty((), dtype=torch.int64).random_())
            parts = [getattr(self, name) for name in names]
            parts, self.seed = self.trainer.strategy.broadcast((parts, seed))
            for name, cells in zip(names, parts, strict=True):
                setattr(self, name, cells)

    def _hold_out_blocks(self) -> None:
        """Hold out a random sample of small blocks of a file, in place of single cells."""
        manager, is_random = self.adata_manager, self.shuffle_set_split
        if self.external_indexing or not is_random or not manager.in_file:
            return
        order = split_order(manager.adata.n_obs, np.random.default_rng(settings.seed))
        parts = np.split(order, np.cumsum([self.n_val, self.n_train]))
        self.val_idx, self.train_idx, self.test_idx = map(np.sort, parts)

    def train_dataloader(self) -> Any:
        """Return minibatches of the training cells, shuffled in every epoch.

        The fields stay on a GPU if they fit there and no loader option is set. Cells of a file are
        read in blocks. Each process has its share of every minibatch.
        """
        options = {key for key, value in self.data_loader_kwargs.items() if value}
        has_options = options - {"batch_size"} or self.load_sparse_tensor or self.pin_memory
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        dataset = self.adata_manager.create_torch_dataset(self.train_idx)
        if self.trainer and self.trainer.overfit_batches:
            return in_order(dataset, self.batch_size)
        place = (
            (self.trainer.global_rank, self.n_processes, self.seed) if self.n_processes > 1 else ()
        )
        if dataset.in_file:
            dataset.load_sparse_tensor = True
            return FileMinibatches(dataset, self.batch_size, self.drop_last, *place)
        if not (has_options or settings.dl_num_workers) and fits(dataset, device):
            self._resident = ResidentCells(dataset, device)
        if place:
            shares = Shares(len(dataset), self.batch_size, self.drop_last, *place)
            return self._of_share(self._resident, self.train_idx, shares)
        if self._resident is not None:
            return shuffled(self._resident, self.batch_size, self.drop_last)
        # only nonzeros are passed on, also from a file
        before, self.load_sparse_tensor = self.load_sparse_tensor, True
        try:
            return super().train_dataloader()
        finally:
            self.load_sparse_tensor = before

    def val_dataloader(self) -> Any:
        """Return minibatches of the validation cells; no loader without validation cells."""
        if self.n_processes > 1 and len(self.val_idx):
            place = self.trainer.global_rank, self.n_processes
            shares = in_shares(len(self.val_idx), self.batch_size, *place)
            return self._of_share(None, self.val_idx, shares)
        return super().val_dataloader() if len(self.val_idx) else []

    def _of_share(self, cells: ResidentCells | None, indices: Any, minibatches: Any) -> Any:
        """Return a loader of given minibatches, of cells on the GPU or of chosen cells."""
        if cells is not None:
            return loader_of_share(cells, minibatches)
        # only nonzeros are passed on
        dataset = self.adata_manager.create_torch_dataset(indices, load_sparse_tensor=True)
        options = self.data_loader_kwargs | {"pin_memory": self.pin_memory}
        options.pop("batch_size", None)
        return loader_of_share(dataset, minibatches, **options)

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
    def n_processes(self) -> int:
        """Number of processes that train together."""
        return int(self.trainer.world_size) if self.trainer else 1

    def cells_of_step(self, step: int, n_processes: int) -> int:
        """Return the number of cells in a step of an epoch, of all processes together."""
        together = n_processes * self.batch_size
        return min(together, self.n_train - step * together)

    def smallest_minibatch(self, n_processes: int = 1) -> int:
        """Return the number of cells in the smallest training minibatch of any process."""
        rest = 0 if self.drop_last else self.n_train % (n_processes * self.batch_size)
        return rest // n_processes if rest else self.batch_size
