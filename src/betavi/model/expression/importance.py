"""Importance weights of posterior draws, for differential expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.distributions._utils import DistributionConcatenator
from scvi.model.base import RNASeqMixin

from betavi.data import COUNTS
from betavi.model.core.beta import scvi_getter
from betavi.model.core.covariates import batch_codes
from betavi.model.core.latent_model import numpy_generator
from betavi.model.expression.decode import decoded_log_size
from betavi.model.setup.selection import features_named
from betavi.nn import StandardNormal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from torch import Tensor
    from torch.distributions import Distribution

    from betavi.model.core.latent_model import LatentModel
    from betavi.model.expression.decode import DecodeRequest


@scvi_getter
def get_importance_weights(
    model: LatentModel,
    adata: AnnData | None,
    indices: Sequence[int] | np.ndarray | None,
    qz: Distribution,
    px: Distribution,
    zs: Tensor,
    max_cells: int = 1024,
    truncation: bool = False,
    n_mc_samples: int = 500,
    n_mc_samples_per_pass: int = 250,
    **data_loader_kwargs: Any,
) -> np.ndarray:
    """Return weights of posterior draws, as scvi-tools computes them.

    Parameters
    ----------
    adata, indices
        Cells that the draws were made for.
    qz, px
        Posteriors and decoded likelihoods of these cells.
    zs
        Draws of z, ``([n_samples,] n_cells, n_latent)``.
    max_cells
        Largest number of cells that the weights are estimated from.
    truncation
        Raise weights below the mean weight to it, after Ionides (2008).
    n_mc_samples, n_mc_samples_per_pass
        See :meth:`get_marginal_ll`.
    **data_loader_kwargs
        Passed to scvi-tools' data loader.

    Returns
    -------
    One weight per draw of z, ``(n_draws,)``; they sum to 1.

    Raises
    ------
    NotImplementedError
        If the prior is not standard normal, or there are several modalities.

    References
    ----------
    Boyeau et al. (2019), Deep generative models for detecting differential expression in single
    cells.

    Examples
    --------
    scvi-tools uses them to choose draws, here 50 draws of 20 cells:

    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> options = {"n_samples_overall": 50, "weights": "importance", "return_numpy": True}
    >>> model.get_normalized_expression(indices=range(20), **options).shape
    (50, 20)
    """
    if not isinstance(model.module.prior, StandardNormal):
        raise NotImplementedError(
            "scvi-tools' importance weights take a standard normal prior for granted, and this "
            f"model has {model.module.options.prior!r}. Use weights='uniform'."
        )
    if model.modalities != [COUNTS]:
        raise NotImplementedError(
            "scvi-tools' importance weights are those of a model of one AnnData. Use "
            "weights='uniform'."
        )
    return RNASeqMixin.get_importance_weights(
        model,
        adata,
        indices,
        qz,
        px,
        zs,
        max_cells,
        truncation,
        n_mc_samples,
        n_mc_samples_per_pass,
        **data_loader_kwargs,
    )


def importance_sampled(
    model: LatentModel,
    adata: AnnData,
    name: str,
    request: DecodeRequest,
    n_draws: int,
    key: str,
    kwargs: dict[str, Any],
) -> np.ndarray:
    """Return decoded values of draws chosen by their importance, ``(n_draws, n_features)``."""
    if request.transform_batch is not None and np.size(request.transform_batch) > 1:
        raise NotImplementedError(
            "Importance weights cannot be computed for averages over batches: pass one batch."
        )
    columns = features_named(model.features(name), request.features, "adata")
    (code,) = batch_codes(model.adata_manager, request.transform_batch)
    values, draws = [], []
    posterior, likelihood = DistributionConcatenator(), DistributionConcatenator()
    for tensors in model.minibatches(adata, request.cells, request.batch_size):
        inferred = model.infer(tensors, request.n_samples)
        size = decoded_log_size(model, tensors, inferred, name)
        px: Any = model.decode(inferred["z"], tensors, name, size, code)
        values.append(px.get_normalized(key)[..., columns].cpu())
        draws.append(inferred["z"].cpu())
        posterior.store_distribution(inferred["qz"])
        likelihood.store_distribution(px)
    # several draws of a cell are along a first axis
    axis = int(request.n_samples > 1)
    weights = get_importance_weights(
        model,
        adata,
        request.cells,
        qz=posterior.get_concatenated_distributions(axis=0),
        px=likelihood.get_concatenated_distributions(axis=axis),
        zs=torch.cat(draws, dim=axis),
        **kwargs,
    )
    whole = torch.cat(values, dim=axis).flatten(0, -2).numpy()
    # in single precision their sum may be too far from 1 for NumPy
    shares = np.asarray(weights, dtype=float)
    return whole[numpy_generator().choice(len(whole), n_draws, p=shares / shares.sum())]
