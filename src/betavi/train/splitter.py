"""The split into training, validation and test cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import dataloaders, settings

from betavi.train.loader import ResidentLoader, fits

if TYPE_CHECKING:
    import numpy as np

    from betavi.train.minibatches import CellManager


# The name is scvi-tools' own: its run checks early stopping against the validation cells only of
# a splitter that is called so.
class DataSplitter(dataloaders.DataSplitter):
    """scvi-tools' split, with minibatches cut whole from the counts by :class:`CellManager`.

    Parameters
    ----------
    adata_manager
        The manager of the object to split.
    **kwargs
        ``train_size``, ``validation_size``, ``batch_size`` and scvi-tools' other options.

    Raises
    ------
    ValueError
        If no cell is left to train on.
    """

    def __init__(self, adata_manager: CellManager, **kwargs: Any) -> None:
        super().__init__(adata_manager, **kwargs)
        if self.n_train < 1:
            raise ValueError(
                f"None of {adata_manager.adata.n_obs} cells is left to train on. Hold out fewer "
                "cells, with train_size and validation_size."
            )

    def train_dataloader(self) -> Any:
        """Return minibatches of the training cells, in a new order in every epoch."""
        return self._resident(self.train_idx, self.drop_last) or super().train_dataloader()

    def _resident(self, cells: np.ndarray, drop_last: bool) -> ResidentLoader | None:
        """Return a loader of fields that stay where the model is, if they fit and nothing else is asked."""
        asked = {key for key, value in self.data_loader_kwargs.items() if value}
        is_plain = asked <= {"batch_size"} and not (self.load_sparse_tensor or self.pin_memory)
        if not is_plain or settings.dl_num_workers or self.trainer is None:
            return None
        device = self.trainer.strategy.root_device
        dataset = self.adata_manager.create_torch_dataset(cells)
        if not fits(dataset, device):
            return None
        return ResidentLoader(dataset, self.batch_size, device, drop_last=drop_last)

    @property
    def batch_size(self) -> int:
        """Number of cells in every minibatch but the last."""
        return int(self.data_loader_kwargs.get("batch_size") or settings.batch_size)

    @property
    def smallest_minibatch(self) -> int:
        """Number of cells in the last training minibatch."""
        return (
            self.batch_size if self.drop_last else self.n_train % self.batch_size or self.batch_size
        )
