"""What the decoders of a joint model say of cells, under scvi-tools' names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from betavi.model.core.covariates import batch_codes
from betavi.model.core.latent import JointLatentMixin
from betavi.model.io.destination import positions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mudata import MuData
    from torch import Tensor

    from betavi.likelihoods import Likelihood

Batches = str | int | list[str] | list[int] | None


class Reading(NamedTuple):
    """Of which cells and features, as if of which batches, averaged over how many draws."""

    indices: Sequence[int] | np.ndarray | None = None
    features: Sequence[str] | None = None
    batches: Batches = None
    n_samples: int = 1
    batch_size: int | None = None
    return_mean: bool = True
    return_numpy: bool = False


class JointExpressionMixin(JointLatentMixin):
    """Means and probabilities of features, denoised, also of assays that a cell lacks."""

    def get_normalized_expression(
        self,
        mdata: MuData | None = None,
        modality: str | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Batches = None,
        gene_list: Sequence[str] | None = None,
        library_size: float = 1.0,
        n_samples: int = 1,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool = False,
    ) -> pd.DataFrame | np.ndarray:
        """Return the expression of each feature, free of the size of the cell.

        Parameters
        ----------
        mdata, indices, batch_size
            Which cells, and how many at once.
        modality
            Which one; if None, the only one with a size that is no protein and no detection.
        transform_batch
            Decode every cell as if it came from this batch, or the average over several; from its
            own if None.
        gene_list
            Only these features.
        library_size
            What the features of a cell sum to; of proteins, a factor of the foreground's counts.
        n_samples
            Number of posterior draws.
        return_mean
            Average over the draws.
        return_numpy
            Return an array, as always if draws are not averaged.

        Returns
        -------
        Cells by features; an array ``(n_samples, n_cells, n_features)`` if draws are not averaged.

        Raises
        ------
        KeyError
            If a feature is unknown.
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
        if isinstance(library_size, str):
            raise ValueError(f"library_size is a number, not {library_size!r}: none is inferred.")
        ask = Reading(
            indices, gene_list, transform_batch, n_samples, batch_size, return_mean, return_numpy
        )
        found = self._decoded(
            mdata, self._of_expression(modality), ask, lambda px: px.get_normalized("scale")
        )
        return found * library_size

    def get_normalized_accessibility(
        self,
        mdata: MuData | None = None,
        modality: str | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Batches = None,
        region_list: Sequence[str] | None = None,
        n_samples: int = 1,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool = False,
    ) -> pd.DataFrame | np.ndarray:
        """Return the probability that each region is seen open, in a cell of typical depth.

        Parameters
        ----------
        mdata, indices, transform_batch, n_samples, batch_size, return_mean, return_numpy
            See :meth:`get_normalized_expression`.
        modality
            The only one with the likelihood ``"bernoulli"`` if None.
        region_list
            Only these regions.

        Returns
        -------
        Cells by regions, probabilities.

        Raises
        ------
        KeyError, ValueError
            See :meth:`get_normalized_expression`.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, n_genes=20, n_peaks=50)
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "nb", "atac": "bernoulli"})
        >>> model = betavi.JointVI(mdata, n_latent=5)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> found = model.get_normalized_accessibility(region_list=["peak_0", "peak_1"])
        >>> found.shape, bool(((found >= 0) & (found <= 1)).all(axis=None))
        ((100, 2), True)
        """
        name = self._meant(modality, lambda kind: kind.is_of_detection)
        ask = Reading(
            indices, region_list, transform_batch, n_samples, batch_size, return_mean, return_numpy
        )
        return self._decoded(mdata, name, ask, lambda px: px.mean)

    def get_protein_foreground_probability(
        self,
        mdata: MuData | None = None,
        modality: str | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Batches = None,
        protein_list: Sequence[str] | None = None,
        n_samples: int = 1,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool = False,
    ) -> pd.DataFrame | np.ndarray:
        """Return the probability that a protein is there, and not only what sticks to any cell.

        Parameters
        ----------
        mdata, indices, transform_batch, n_samples, batch_size, return_mean, return_numpy
            See :meth:`get_normalized_expression`.
        modality
            The only one with the likelihood ``"nb_mixture"`` if None.
        protein_list
            Only these proteins.

        Returns
        -------
        Cells by proteins, probabilities before a count was seen.

        Raises
        ------
        KeyError, ValueError
            See :meth:`get_normalized_expression`.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, n_genes=20)
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "nb", "adt": "nb_mixture"})
        >>> model = betavi.JointVI(mdata, n_latent=5)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> found = model.get_protein_foreground_probability()
        >>> found.shape, bool(((found >= 0) & (found <= 1)).all(axis=None))
        ((100, 15), True)
        """
        name = self._meant(modality, lambda kind: kind.has_background)
        ask = Reading(
            indices, protein_list, transform_batch, n_samples, batch_size, return_mean, return_numpy
        )
        return self._decoded(mdata, name, ask, lambda px: 1 - px.mixture_probs)

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
        self, mdata: MuData | None, name: str, ask: Reading, read: Callable[[Any], Tensor]
    ) -> pd.DataFrame | np.ndarray:
        """Return what is read of the distribution of a modality."""
        mdata = self._validate_anndata(mdata)
        cells = self._cells(mdata, ask.indices)
        names = pd.Index(self._features(name))
        columns = positions_of(names, ask.features, f"The modality {name!r}")
        codes = batch_codes(self.adata_manager, ask.batches)
        size, parts = self._typical(name).usual, []
        averages = ask.return_mean or ask.n_samples == 1
        for tensors in self._seen_by(mdata, self.modalities, cells, ask.batch_size):
            z = self._drawn(tensors, ask.n_samples)
            each = [read(self._px(z, tensors, name, size, code))[..., columns] for code in codes]
            values = torch.stack(each).mean(dim=0)
            several = averages and ask.n_samples > 1
            parts.append((values.mean(dim=0) if several else values).cpu().numpy())
        found = np.concatenate(parts, axis=-2)
        if ask.return_numpy or not averages:
            return found
        return pd.DataFrame(found, index=mdata.obs_names[cells], columns=names[columns])
