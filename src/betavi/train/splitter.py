"""The split into training, validation and test cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import dataloaders, settings

if TYPE_CHECKING:
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
