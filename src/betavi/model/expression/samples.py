"""Draws from the posterior predictive distribution, and correlations between features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sparse
import torch
from scipy.stats import spearmanr
from scvi.data._utils import _validate_adata_dataloader_input

from betavi._tables import check_whole, lookup
from betavi.likelihoods import LIKELIHOODS
from betavi.model.core.beta import scvi_getter
from betavi.model.core.covariates import batch_codes
from betavi.model.expression.decode import (
    Batches,
    DecodeRequest,
    decoded_log_size,
    expression_modality,
    named_modality,
    refuse_with_dataloader,
)
from betavi.model.setup.selection import features_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel, Tensors

CORRELATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "spearman": lambda values: np.asarray(spearmanr(values).statistic),
    "pearson": lambda values: np.corrcoef(values, rowvar=False),
}
"""Correlations of the columns of an array, by the user's word."""


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
) -> sparse.GCXS:
    """Draw data from the posterior predictive distribution.

    Positions are drawn from the posterior of each cell, and data from the decoded likelihood. A
    cell that lacks the modality gets a draw too, at a typical library size.

    Parameters
    ----------
    adata, indices, transform_batch, gene_list, batch_size, dataloader, silent, modality
        See :meth:`get_normalized_expression`.
    n_samples
        Number of draws per cell.
    **data_loader_kwargs
        Passed to scvi-tools' data loader.

    Returns
    -------
    Sparse array, ``(n_cells, n_features)``, or ``(n_cells, n_features, n_samples)``.

    Raises
    ------
    KeyError, ValueError
        If a feature or a batch is unknown, the modality is unclear, or ``transform_batch`` is
        passed with a ``dataloader``.

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
    _validate_adata_dataloader_input(model, adata, dataloader)
    refuse_with_dataloader(dataloader, transform_batch=transform_batch)
    check_whole("n_samples", n_samples)
    name = named_modality(model, modality)
    columns, codes = None, batch_codes(model.adata_manager, None)
    if dataloader is None:
        adata = model._validate_anndata(adata)
        progress = None if silent else "Sampling"
        dataloader = model.minibatches(
            adata, indices, batch_size, progress=progress, **data_loader_kwargs
        )
        codes = batch_codes(model.adata_manager, transform_batch)
    if gene_list is not None:
        columns = features_named(model.features(name), gene_list, "adata")
    parts = []
    for tensors in dataloader:
        inferred = model.infer(tensors, n_samples)
        size = decoded_log_size(model, tensors, inferred, name)
        with model.likelihood(name).only(columns):
            drawn = [
                model.decode(inferred["z"], tensors, name, size, code).sample() for code in codes
            ]
        values = torch.stack(drawn).mean(dim=0) if len(drawn) > 1 else drawn[0]
        values = values.permute(1, 2, 0) if n_samples > 1 else values
        parts.append(sparse.GCXS.from_numpy(values.cpu().numpy()))
    return sparse.concatenate(parts, axis=0)


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
    """Return correlations between features of denoised draws.

    The draws are gamma rates: the posterior predictive distribution without counting noise, at one
    library size.

    Parameters
    ----------
    adata, indices, batch_size, silent, modality
        See :meth:`get_normalized_expression`.
    n_samples, rna_size_factor
        Number of draws per cell, and the library size of all cells.
    transform_batch
        Batch to decode in, or several to average correlations over; each cell's own if None.
    correlation_type
        ``"spearman"`` or ``"pearson"``.

    Returns
    -------
    Data frame of features by features, ``(n_features, n_features)``.

    Raises
    ------
    NotImplementedError
        If the likelihood is not a gamma-Poisson mixture.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

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
    check_whole("n_samples", n_samples)
    name = expression_modality(model, modality)
    if not model.likelihood(name).is_gamma_poisson:
        possible = [word for word, kind in LIKELIHOODS.items() if kind.is_gamma_poisson]
        raise NotImplementedError(
            f"Correlations are of draws of the likelihoods {', '.join(possible)} of counts, and not of "
            f"{model.module.likelihood_names[name]!r}. Correlate get_normalized_expression() instead."
        )
    adata = model._validate_anndata(adata)
    progress = None if silent else "Sampling"
    request = DecodeRequest(indices, n_samples=n_samples, batch_size=batch_size, progress=progress)
    found = [
        correlate(_rates(model, adata, name, request, rna_size_factor, code))
        for code in batch_codes(model.adata_manager, transform_batch)
    ]
    names = model.features(name)
    return pd.DataFrame(np.mean(found, axis=0), index=names, columns=names)


def _rates(
    model: LatentModel,
    adata: AnnOrMuData,
    name: str,
    request: DecodeRequest,
    size: float,
    code: int | None,
) -> np.ndarray:
    """Return gamma rates of draws of cells at one size, ``(n_samples * n_cells, n_features)``."""
    parts = []
    loading = request.cells, request.batch_size, None, request.progress
    for tensors in model.minibatches(adata, *loading):
        inferred = model.infer(tensors, request.n_samples)
        log_size = decoded_log_size(model, tensors, inferred, name)
        px: Any = model.decode(inferred["z"], tensors, name, log_size, code)
        theta = px.theta.expand(px.scale.shape)
        drawn = torch.distributions.Gamma(theta, theta / (size * px.scale)).sample()
        parts.append(drawn.flatten(0, -2).cpu().numpy())
    return np.concatenate(parts)
