"""Normalised expression, accessibility, and probabilities that a protein is present."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.data._utils import _validate_adata_dataloader_input

from betavi._tables import check_whole, lookup
from betavi.model.core.beta import scvi_getter
from betavi.model.core.latent_model import numpy_generator
from betavi.model.expression.decode import (
    Batches,
    DecodeRequest,
    expression_modality,
    refuse_with_dataloader,
    suitable_modality,
    table,
)
from betavi.model.expression.importance import importance_sampled
from betavi.model.setup.messages import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.model.core.latent_model import LatentModel, Tensors

WEIGHTS: dict[str, bool] = {"uniform": False, "importance": True}
"""By the user's word: draws have importance weights."""


@scvi_getter
@torch.inference_mode()
def get_normalized_expression(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    transform_batch: Batches = None,
    gene_list: Sequence[str] | None = None,
    library_size: float | str = 1,
    n_samples: int = 1,
    n_samples_overall: int | None = None,
    weights: str | None = None,
    batch_size: int | None = None,
    return_mean: bool = True,
    return_numpy: bool | None = None,
    silent: bool = True,
    dataloader: Iterable[Tensors] | None = None,
    data_loader_kwargs: dict[str, Any] | None = None,
    modality: str | None = None,
    **importance_weighting_kwargs: Any,
) -> pd.DataFrame | np.ndarray:
    """Return decoded expression, as shares of a cell's total.

    Parameters
    ----------
    adata, indices, batch_size, dataloader, data_loader_kwargs
        Cells, and how many at once; or minibatches in place of an object.
    transform_batch
        Batch to decode every cell in, or several to average over; each cell's own if None.
    gene_list
        Features to return, and to decode; all if None.
    library_size
        Number that the features of a cell sum to, for proteins a factor of the foreground's counts;
        ``"latent"`` for expected counts at each cell's own size, with one modality.
    n_samples, return_mean
        Number of posterior draws per cell; average over them.
    n_samples_overall, weights
        Number of draws of random cells, in place of ``n_samples``, and their weights: ``"uniform"``
        or ``"importance"``.
    return_numpy
        Return an array, as always for draws that are not averaged.
    silent
        Show no progress bar.
    modality
        Modality to decode. If None, the only one that is neither protein nor detection.
    **importance_weighting_kwargs
        Passed to :meth:`get_importance_weights`.

    Returns
    -------
    Cells by features. ``(n_samples, n_cells, n_features)`` for draws that are not averaged,
    ``(n_samples_overall, n_features)`` for draws of random cells.

    Raises
    ------
    KeyError, ValueError
        If a feature or a batch is unknown, the modality is unclear, or options contradict;
        ``transform_batch`` and ``n_samples_overall`` need an object, not a ``dataloader``.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

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
    _validate_adata_dataloader_input(model, adata, dataloader)
    refuse_with_dataloader(
        dataloader, transform_batch=transform_batch, n_samples_overall=n_samples_overall
    )
    name = expression_modality(model, modality)
    is_weighed = lookup(WEIGHTS, weights or "uniform", "weights")
    key, factor = _scale(model, name, library_size)
    check_whole("n_samples", n_samples)
    request = DecodeRequest(
        indices,
        gene_list,
        transform_batch,
        n_samples,
        batch_size,
        return_mean,
        progress=None if silent else "Decoding",
        loader_kwargs=data_loader_kwargs or {},
    )
    if n_samples_overall is not None:
        adata = model._validate_anndata(adata)
        request = _of_random_cells(adata, request, n_samples_overall, is_weighed)
        if is_weighed:
            return factor * importance_sampled(
                model, adata, name, request, n_samples_overall, key, importance_weighting_kwargs
            )
    if return_numpy is False and n_samples > 1 and not return_mean:
        warn("Draws that are not averaged are an array: return_numpy=False has no effect.")

    def read(px: Any) -> Tensor:
        return px.get_normalized(key) * factor

    return table(model, adata, name, request, read, return_numpy, dataloader)


def _scale(model: LatentModel, name: str, library_size: float | str) -> tuple[str, float]:
    """Return the name of a distribution's parameter to read, and a factor for it."""
    if not isinstance(library_size, str):
        return "scale", library_size
    if library_size != "latent" or model.module.typical(name) is not None:
        raise ValueError(
            f"library_size is a number, not {library_size!r}: none is inferred."
            if library_size == "latent"
            else f"library_size is a number or 'latent', not {library_size!r}."
        )
    return "mu", 1.0


def _of_random_cells(
    adata: AnnOrMuData, request: DecodeRequest, n_draws: int, is_weighed: bool
) -> DecodeRequest:
    """Return a request for one draw each of random cells; with weights, for draws of all cells."""
    check_whole("n_samples_overall", n_draws)
    if request.n_samples != 1:
        raise ValueError(
            "n_samples and n_samples_overall exclude each other: leave one of them out."
        )
    cells = np.arange(adata.n_obs) if request.cells is None else np.asarray(request.cells)
    if is_weighed:
        return request._replace(cells=cells, n_samples=n_draws // len(cells) + 1)
    return request._replace(cells=numpy_generator().choice(cells, n_draws))


@scvi_getter
@torch.inference_mode()
def get_normalized_accessibility(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    transform_batch: Batches = None,
    region_list: Sequence[str] | None = None,
    n_samples: int = 1,
    batch_size: int | None = None,
    return_mean: bool = True,
    return_numpy: bool = False,
    modality: str | None = None,
) -> pd.DataFrame | np.ndarray:
    """Return the probability that each region is detected as open, in a cell of typical depth.

    Parameters
    ----------
    adata, indices, transform_batch, region_list, n_samples, batch_size, return_mean, return_numpy
        See :meth:`get_normalized_expression`; ``region_list`` has regions in place of genes.
    modality
        Modality to decode. If None, the only one with the likelihood ``"bernoulli"``.

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
    name = suitable_modality(model, modality, lambda part: part.is_of_detection)
    request = DecodeRequest(
        indices, region_list, transform_batch, n_samples, batch_size, return_mean
    )
    return table(model, adata, name, request, lambda px: px.mean, return_numpy)


@scvi_getter
@torch.inference_mode()
def get_protein_foreground_probability(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    transform_batch: Batches = None,
    protein_list: Sequence[str] | None = None,
    n_samples: int = 1,
    batch_size: int | None = None,
    return_mean: bool = True,
    return_numpy: bool = False,
    modality: str | None = None,
) -> pd.DataFrame | np.ndarray:
    """Return the probability that a protein is present, and not only background.

    Parameters
    ----------
    adata, indices, transform_batch, protein_list, n_samples, batch_size, return_mean, return_numpy
        See :meth:`get_normalized_expression`; ``protein_list`` has proteins in place of genes.
    modality
        Modality to decode. If None, the only one with the likelihood ``"nb_mixture"``.

    Returns
    -------
    Cells by proteins, probabilities before a count was observed.

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
    name = suitable_modality(model, modality, lambda part: part.has_background)
    request = DecodeRequest(
        indices, protein_list, transform_batch, n_samples, batch_size, return_mean
    )
    return table(model, adata, name, request, lambda px: 1 - px.mixture_probs, return_numpy)
