"""What the decoders of a joint model say of cells, under scvi-tools' names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from betavi.model.covariates import batch_code
from betavi.model.joint_latent import JointLatentMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mudata import MuData
    from torch import Tensor

    from betavi.likelihoods import Likelihood


class JointExpressionMixin(JointLatentMixin):
    """Means and probabilities of features, denoised, also of assays that a cell lacks."""

    def get_normalized_expression(
        self,
        mdata: MuData | None = None,
        modality: str | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: str | int | None = None,
        library_size: float = 1.0,
        n_samples: int = 1,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Return the expression of each feature, free of the size of the cell.

        Parameters
        ----------
        mdata, indices, batch_size
            Which cells, and how many at once.
        modality
            Which one; if None, the only one with a size that is no protein and no detection.
        transform_batch
            Decode every cell as if it came from this batch; from its own if None.
        library_size
            What the features of a cell sum to; of proteins, a factor of the foreground's counts.
        n_samples
            Number of posterior draws that are averaged.

        Returns
        -------
        Cells by features.

        Raises
        ------
        ValueError
            If it is not clear which modality is meant, or the batch is unknown.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, missing={"rna": 0.5})
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        >>> model = betavi.JointVI(mdata, n_latent=5)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> model.get_normalized_expression(library_size=1e4).shape
        (100, 200)
        """
        name = self._of_expression(modality)
        found = self._decoded(
            mdata, name, indices, transform_batch, n_samples, batch_size,
            lambda px: px.get_normalized("scale"),
        )  # fmt: skip
        return found * library_size

    def get_accessibility_estimates(
        self,
        mdata: MuData | None = None,
        modality: str | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: str | int | None = None,
        n_samples: int = 1,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Return the probability that each region is seen open, in a cell of typical depth.

        Parameters
        ----------
        mdata, modality, indices, transform_batch, n_samples, batch_size
            See :meth:`get_normalized_expression`; the modality is the only one with the likelihood
            ``"bernoulli"`` if None.

        Returns
        -------
        Cells by regions, probabilities.

        Raises
        ------
        ValueError
            See :meth:`get_normalized_expression`.
        """
        name = self._meant(modality, lambda kind: kind.is_of_detection)
        return self._decoded(
            mdata, name, indices, transform_batch, n_samples, batch_size, lambda px: px.mean
        )

    def get_protein_foreground_probability(
        self,
        mdata: MuData | None = None,
        modality: str | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: str | int | None = None,
        n_samples: int = 1,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Return the probability that a protein is there, and not only what sticks to any cell.

        Parameters
        ----------
        mdata, modality, indices, transform_batch, n_samples, batch_size
            See :meth:`get_normalized_expression`; the modality is the only one with the likelihood
            ``"nb_mixture"`` if None.

        Returns
        -------
        Cells by proteins, probabilities before a count was seen.

        Raises
        ------
        ValueError
            See :meth:`get_normalized_expression`.
        """
        name = self._meant(modality, lambda kind: kind.has_background)
        return self._decoded(
            mdata, name, indices, transform_batch, n_samples, batch_size,
            lambda px: 1 - px.mixture_probs,
        )  # fmt: skip

    def _of_expression(self, modality: str | None) -> str:
        """Return the modality that is meant; proteins only if they are named."""
        named = modality is not None
        return self._meant(
            modality, lambda kind: not kind.is_of_detection and (named or not kind.has_background)
        )

    def _meant(self, modality: str | None, suits: Callable[[type[Likelihood]], bool]) -> str:
        """Return the modality that is meant, which has to have a suitable likelihood."""
        suitable = [name for name in self.modalities if suits(self._kind(name))]
        if modality is not None:
            (name,) = self._chosen(modality)
            if name not in suitable:
                raise ValueError(
                    f"{name!r} has the likelihood {self._likelihood(name)!r}, of which this is not "
                    f"defined. It is of: {', '.join(map(repr, suitable)) or 'no modality here'}."
                )
            return name
        if len(suitable) != 1:
            raise ValueError(
                f"Say which modality is meant, modality=...: "
                f"{', '.join(map(repr, suitable)) or 'there is none that suits'}."
            )
        return suitable[0]

    @torch.inference_mode()
    def _decoded(
        self,
        mdata: MuData | None,
        name: str,
        indices: Sequence[int] | np.ndarray | None,
        transform_batch: str | int | None,
        n_samples: int,
        batch_size: int | None,
        read: Callable[[Any], Tensor],
    ) -> pd.DataFrame:
        """Return what is read of the distribution of a modality, averaged over draws."""
        mdata = self._validate_anndata(mdata)
        code = self._batch_code(transform_batch)
        size, parts = self._typical(name).usual, []
        for tensors in self._seen_by(mdata, self.modalities, indices, batch_size):
            values = read(self._px(self._drawn(tensors, n_samples), tensors, name, size, code))
            parts.append((values.mean(dim=0) if n_samples > 1 else values).cpu().numpy())
        cells = mdata.obs_names if indices is None else mdata.obs_names[np.asarray(indices)]
        return pd.DataFrame(np.concatenate(parts), index=cells, columns=self._features(name))

    def _batch_code(self, batch: str | int | None) -> int | None:
        return None if batch is None else batch_code(self.adata_manager, batch)
