"""Normalised expression, accessibility, and probabilities of protein foreground."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from betavi._tables import lookup
from betavi.model.core.beta import scvi_getter
from betavi.model.core.latent_model import numpy_generator
from betavi.model.expression.decode import (
    Batches,
    DecodeRequest,
    check_dataloader,
    expression_modality,
    suitable_modality,
)
from betavi.model.expression.importance import importance_sampled
from betavi.model.setup.messages import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel, Tensors

WEIGHTS: dict[str, bool] = {"uniform": False, "importance": True}
"""Allowed values of ``weights``. True for importance weights."""


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
    """Return decoded expression, as shares of each cell's total (Lopez et al., 2018).

    Parameters
    ----------
    adata, indices, batch_size, dataloader, data_loader_kwargs
        See :meth:`get_latent_representation`.
    transform_batch
        Batch to decode all cells in, or several batches to average over. If None, the own batch of
        each cell.
    gene_list
        Features to decode. If None, all features.
    library_size
        Sum of the values of each cell. For proteins, a factor of the expected foreground counts. In
        a model of one modality, ``"latent"`` returns expected counts at the cell's own library
        size.
    n_samples
        Number of posterior samples per cell.
    return_mean
        Return the mean over the samples.
    n_samples_overall
        Number of posterior samples in total, from random cells. It replaces ``n_samples``.
    weights
        With ``n_samples_overall``: ``"uniform"`` chooses all cells with the same probability.
        ``"importance"`` uses the weights of :meth:`betavi.BetaVI.get_importance_weights`.
    return_numpy
        Return an array in place of a data frame. Samples that are not averaged are always an array.
    silent
        Hide the progress bar.
    modality
        Modality to decode. If None, the only modality whose likelihood is neither ``"bernoulli"``
        nor ``"nb_mixture"``.
    **importance_weighting_kwargs
        Options of :meth:`betavi.BetaVI.get_importance_weights`.

    Returns
    -------
    Expression, ``(n_cells, n_features)``. With ``return_mean=False`` and several samples,
    ``(n_samples, n_cells, n_features)``. With ``n_samples_overall``,
    ``(n_samples_overall, n_features)``.

    Raises
    ------
    KeyError
        If a feature is unknown.
    ValueError
        If a batch is unknown, the modality is unclear, or two options exclude each other.
        ``transform_batch`` and ``n_samples_overall`` exclude ``dataloader``.

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
    need_adata = {"transform_batch": transform_batch, "n_samples_overall": n_samples_overall}
    check_dataloader(model, adata, dataloader, **need_adata)
    name = expression_modality(model, modality)
    by_importance = lookup(WEIGHTS, "uniform" if weights is None else weights, "weights")
    key, factor = _scale(model, name, library_size)
    options = transform_batch, n_samples, batch_size, return_mean, None if silent else "Decoding"
    loading = data_loader_kwargs or {}, dataloader
    request = DecodeRequest(model, adata, name, indices, gene_list, *options, *loading)
    if n_samples_overall is not None:
        request = _request_overall(request, n_samples_overall, by_importance)
        if by_importance:
            kwargs = importance_weighting_kwargs
            return factor * importance_sampled(request, n_samples_overall, key, kwargs)
    if return_numpy is False and n_samples > 1 and not return_mean:
        warn(
            "`return_numpy=False` has no effect, because samples that are not averaged are "
            "returned as an array. For a data frame of means, pass return_mean=True."
        )
    return request.table(lambda px: px.get_normalized(key) * factor, return_numpy)


def _scale(model: LatentModel, name: str, library_size: float | str) -> tuple[str, float]:
    """Return the parameter of a decoded distribution to read, and the factor for it."""
    if isinstance(library_size, Real):
        return "scale", float(library_size)
    if not isinstance(library_size, str) or library_size != "latent":
        raise ValueError(f"`library_size` must be a number or 'latent', not {library_size!r}.")
    if model.module.typical(name) is not None:
        raise ValueError(
            "`library_size` must be a number, not 'latent', because cells of this model may lack a "
            "modality. The model decodes all cells at the typical library size."
        )
    return "mu", 1.0


def _request_overall(request: DecodeRequest, n_draws: int, by_importance: bool) -> DecodeRequest:
    """Return a request for samples of random cells.

    With importance weights, request samples of all cells, from which the weights choose.
    """
    adata = request.model._validate_anndata(request.adata)
    if request.n_samples != 1:
        raise ValueError("`n_samples` and `n_samples_overall` cannot be combined. Pass only one.")
    cells = np.arange(adata.n_obs) if request.cells is None else np.asarray(request.cells)
    if by_importance:
        n_samples = n_draws // len(cells) + 1
        return request._replace(adata=adata, cells=cells, n_samples=n_samples)
    return request._replace(adata=adata, cells=numpy_generator().choice(cells, n_draws))


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
    """Return the probability that each region is detected as open, ``(n_cells, n_regions)``.

    The probability is for a cell of typical sequencing depth. With ``return_mean=False`` and
    several samples, the result is ``(n_samples, n_cells, n_regions)``.

    Parameters
    ----------
    adata, indices, transform_batch, n_samples, batch_size, return_mean, return_numpy
        See :meth:`get_normalized_expression`.
    region_list
        Regions to decode. If None, all regions.
    modality
        Modality to decode. If None, the only modality with the likelihood ``"bernoulli"``.

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
    options = transform_batch, n_samples, batch_size, return_mean
    request = DecodeRequest(model, adata, name, indices, region_list, *options)
    return request.table(lambda px: px.mean, return_numpy)


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
    """Return the probability that each protein is present, ``(n_cells, n_proteins)``.

    Counts of a protein that is not present are background only. The probability is computed from z,
    without the cell's own count of the protein. With ``return_mean=False`` and several samples, the
    result is ``(n_samples, n_cells, n_proteins)``.

    Parameters
    ----------
    adata, indices, transform_batch, n_samples, batch_size, return_mean, return_numpy
        See :meth:`get_normalized_expression`.
    protein_list
        Proteins to decode. If None, all proteins.
    modality
        Modality to decode. If None, the only modality with the likelihood ``"nb_mixture"``.

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
    options = transform_batch, n_samples, batch_size, return_mean
    request = DecodeRequest(model, adata, name, indices, protein_list, *options)
    return request.table(lambda px: 1 - px.mixture_probs, return_numpy)
