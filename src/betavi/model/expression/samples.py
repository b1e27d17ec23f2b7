"""Samples of the posterior predictive distribution, and feature correlations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sparse
import torch
from scipy.stats import spearmanr

from betavi._tables import lookup
from betavi.likelihoods import LIKELIHOODS
from betavi.model.core.beta import scvi_getter
from betavi.model.expression.decode import (
    Batches,
    DecodeRequest,
    check_dataloader,
    expression_modality,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.model.core.latent_model import LatentModel, Tensors

CORRELATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "spearman": lambda values: np.asarray(spearmanr(values).statistic),
    "pearson": lambda values: np.corrcoef(values, rowvar=False),
}
"""Correlations between the columns of an array, by ``correlation_type``."""


@scvi_getter
@torch.inference_mode()
def posterior_predictive_sample(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    transform_batch: Batches = None,
    n_samples: int = 1,
    gene_list: Sequence[str] | None = None,
    batch_size: int | None = None,
    dataloader: Iterable[Tensors] | None = None,
    silent: bool = True,
    modality: str | None = None,
    **data_loader_kwargs: Any,
) -> sparse.GCXS | np.ndarray:
    """Draw data from the posterior predictive distribution.

    Positions are drawn from the posterior of each cell, and data from the decoded likelihood. Data
    are also drawn for a cell that lacks the modality, at the typical library size.

    Parameters
    ----------
    adata, indices, transform_batch, gene_list, batch_size, dataloader, silent
        See :meth:`get_normalized_expression`.
    n_samples
        Number of samples per cell.
    modality
        Modality to sample. All likelihoods are possible. If None, as in
        :meth:`get_normalized_expression`.
    **data_loader_kwargs
        Options of scvi-tools' data loader.

    Returns
    -------
    Sparse array, ``(n_cells, n_features)``. For several samples,
    ``(n_cells, n_features, n_samples)``. Images are a dense array,
    ``(n_cells, n_channels, height, width)``, with the samples on a last axis if there are several.

    Raises
    ------
    KeyError
        If a feature is unknown.
    ValueError
        If a batch or modality is unclear, ``transform_batch`` is passed with ``dataloader``, or
        ``gene_list`` is passed for images.

    References
    ----------
    Gayoso et al. (2022), A Python library for probabilistic analysis of single-cell omics data.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.posterior_predictive_sample(n_samples=2).shape
    (100, 20, 2)
    """
    check_dataloader(model, adata, dataloader, transform_batch=transform_batch)
    name = _sampled_modality(model, modality)
    image = model.image_format(name)
    if image is not None and gene_list is not None:
        raise ValueError("`gene_list` is not available for images. Leave `gene_list` out.")
    if dataloader is None:
        adata = model._validate_anndata(adata)
    options = transform_batch, n_samples, batch_size, False, None if silent else "Sampling"
    loading = data_loader_kwargs, dataloader
    request = DecodeRequest(model, adata, name, indices, gene_list, *options, *loading)
    parts = []
    for _, values in request.decoded(lambda px: px.sample(), request.codes, request.columns):
        draws_last = (values.permute(1, 2, 0) if n_samples > 1 else values).cpu().numpy()
        parts.append(draws_last if image is not None else sparse.GCXS.from_numpy(draws_last))
    if image is None:
        return sparse.concatenate(parts, axis=0)
    draws = np.concatenate(parts)
    return draws.reshape(len(draws), *image.shape, *draws.shape[2:])


def _sampled_modality(model: LatentModel, modality: str | None) -> str:
    """Return the modality to sample, which may have images."""
    names = model.modalities if modality is None else model.named_modalities(modality)
    if len(names) == 1 and model.image_format(names[0]) is not None:
        return names[0]
    return expression_modality(model, modality, any_named=True)


@scvi_getter
@torch.inference_mode()
def get_feature_correlation_matrix(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 10,
    batch_size: int = 64,
    rna_size_factor: int = 1000,
    transform_batch: Batches = None,
    correlation_type: str = "spearman",
    silent: bool = True,
    modality: str | None = None,
) -> pd.DataFrame:
    """Return correlations between features, without counting noise, ``(n_features, n_features)``.

    The correlated values are samples of the posterior predictive distribution without counting
    noise: gamma-distributed expected counts, at the same library size for all cells (Lopez et al.,
    2018).

    Parameters
    ----------
    adata, indices, batch_size, silent, modality
        See :meth:`get_normalized_expression`.
    n_samples
        Number of samples per cell.
    rna_size_factor
        Library size of all cells.
    transform_batch
        Batch to decode all cells in, or several batches to average correlations over. If None, the
        own batch of each cell.
    correlation_type
        ``"spearman"`` or ``"pearson"``.

    Raises
    ------
    NotImplementedError
        If the likelihood is not a Poisson distribution with gamma-distributed expected counts.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_feature_correlation_matrix(n_samples=2).shape
    (20, 20)
    """
    correlate = lookup(CORRELATIONS, correlation_type, "correlation_type")
    name = expression_modality(model, modality)
    if not model.likelihood(name).is_gamma_poisson:
        possible = [word for word, kind in LIKELIHOODS.items() if kind.is_gamma_poisson]
        raise NotImplementedError(
            f"Feature correlations need one of the likelihoods {', '.join(possible)}, not "
            f"{model.module.likelihood_names[name]!r}. Correlate get_normalized_expression() instead."
        )
    adata = model._validate_anndata(adata)
    options = transform_batch, n_samples, batch_size, False, None if silent else "Sampling"
    request = DecodeRequest(model, adata, name, indices, None, *options)

    def draw_rates(px: Any) -> Tensor:
        theta = px.theta.expand(px.scale.shape)
        return torch.distributions.Gamma(
            theta, theta / (float(rna_size_factor) * px.scale)
        ).sample()

    found = []
    for code in request.codes:
        drawn = request.decoded(draw_rates, [code])
        rates = [values.flatten(0, -2).cpu().numpy() for _, values in drawn]
        found.append(correlate(np.concatenate(rates)))
    names = model.features(name)
    return pd.DataFrame(np.mean(found, axis=0), index=names, columns=names)
