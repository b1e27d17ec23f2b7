"""Models like one that is there, on counts that were thinned or shuffled."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from betavi.model.denoising.estimate import Asked, DenoiseEngine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from scipy import sparse
    from scvi._types import AnnOrMuData

CELLS_AT_ONCE = 512


class RetrainMixin(DenoiseEngine):
    """Trains models like this one, and asks them what they expect."""

    @abstractmethod
    def _with_counts(self, counts: Mapping[str, sparse.csr_matrix]) -> AnnOrMuData:
        """Return an object like this model's with other counts of some modalities, set up."""

    @abstractmethod
    def _cells_of(self, name: str) -> np.ndarray:
        """Return the cells that have a modality, in the order of its rows."""

    def _trained_on(
        self,
        counts: Mapping[str, sparse.csr_matrix],
        arguments: dict[str, Any],
        show_progress: bool,
        train_kwargs: dict[str, Any],
    ) -> Any:
        """Return a model like this one, trained on other counts of the same cells and features.

        For as many epochs as this one was, if it was and nothing else is said.
        """
        with warnings.catch_warnings():
            # what is odd of the counts was said when they were registered
            warnings.simplefilter("ignore")
            like = self._with_counts(counts)
        model = type(self)(like, **self._module_kwargs | arguments)
        options: dict[str, Any] = {"enable_progress_bar": show_progress}
        history = getattr(self, "history_", None) or {}
        if self.is_trained and "elbo_train" in history:
            # of all calls of train(), which other entries may be of the first or the last
            options["max_epochs"] = len(history["elbo_train"])
        model.train(**options | train_kwargs)
        return model

    @torch.inference_mode()
    def _expected_counts(
        self, name: str, estimate: str, n_samples: int = 1, show_progress: bool = False
    ) -> Iterator[np.ndarray]:
        """Yield denoised values of the cells of a modality, a block at a time."""
        loader = self._make_data_loader(self.adata, self._cells_of(name), CELLS_AT_ONCE)
        ask = Asked(estimate, None, n_samples)
        for mean, _ in self._moments(name, loader, ask, iter(range(2**31)), show_progress):
            yield mean
