"""Importance weights of posterior samples, for differential expression."""

from __future__ import annotations

import inspect
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.distributions._utils import DistributionConcatenator
from scvi.model.base import RNASeqMixin

from betavi.data import COUNTS
from betavi.model.core.beta import scvi_getter
from betavi.model.core.latent_model import numpy_generator
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
    """Return importance weights of posterior samples, one per sample of z. The sum is 1.

    scvi-tools computes the weights (Boyeau et al., 2019). :meth:`get_normalized_expression` and
    :meth:`differential_expression` call this method with ``weights="importance"``.

    Parameters
    ----------
    adata
        Object with the cells.
    indices
        Cells of the samples.
    qz
        Posteriors of these cells.
    px
        Decoded likelihoods of these cells.
    zs
        Samples of z, ``([n_samples,] n_cells, n_latent)``.
    max_cells
        Largest number of cells that the weights are estimated from.
    truncation
        Raise weights below the mean weight to the mean (Ionides, 2008).
    n_mc_samples
        Number of posterior samples per cell for the estimate of the marginal likelihood.
    n_mc_samples_per_pass
        Number of these samples that are decoded at once.
    **data_loader_kwargs
        Options of scvi-tools' data loader.

    Raises
    ------
    NotImplementedError
        If the prior is not standard normal, or the model has several modalities. With
        ``weights="importance"``, also for the likelihoods ``"normal"`` and ``"nb_mixture"``.

    Examples
    --------
    The weights choose 50 of the draws of 20 cells:

    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> options = {"n_samples_overall": 50, "weights": "importance", "return_numpy": True}
    >>> model.get_normalized_expression(indices=range(20), **options).shape
    (50, 20)
    """
    _check_supported(model)
    # without gradients, the log-probability of scvi-tools takes a third of the time of ours
    px = copy(px)
    px.__class__ = next(cls for cls in type(px).__mro__ if cls.__module__.startswith("scvi."))
    options = max_cells, truncation, n_mc_samples, n_mc_samples_per_pass
    return RNASeqMixin.get_importance_weights(
        model, adata, indices, qz, px, zs, *options, **data_loader_kwargs
    )


def _check_supported(model: LatentModel) -> None:
    """Raise a NotImplementedError if scvi-tools cannot compute weights for this model."""
    if not isinstance(model.module.prior, StandardNormal):
        raise NotImplementedError(
            "scvi-tools' importance weights need a standard normal prior, not "
            f"{model.module.options.prior!r}. Use weights='uniform'."
        )
    if model.modalities != [COUNTS]:
        raise NotImplementedError(
            "scvi-tools' importance weights need a model of one AnnData. Use weights='uniform'."
        )


def importance_sampled(
    request: DecodeRequest, n_draws: int, key: str, kwargs: dict[str, Any]
) -> np.ndarray:
    """Return values of samples chosen by their importance weights, ``(n_draws, n_features)``."""
    if request.transform_batch is not None and np.size(request.transform_batch) > 1:
        raise NotImplementedError(
            "Importance weights cannot be averaged over several batches. Pass one batch as "
            "`transform_batch`, or use weights='uniform'."
        )
    _check_supported(request.model)
    columns, values, draws = request.columns, [], []
    posterior, likelihood = DistributionConcatenator(), DistributionConcatenator()
    for inferred, px in request.decoded(lambda px: px, request.codes):
        if not px.arg_constraints.keys() <= inspect.signature(type(px)).parameters.keys():
            raise NotImplementedError(
                "scvi-tools' importance weights do not support the likelihood "
                f"{request.model.module.likelihood_names[request.name]!r}. Use weights='uniform'."
            )
        scale = px.get_normalized(key)
        values.append((scale if columns is None else scale[..., columns]).cpu())
        draws.append(inferred["z"].cpu())
        posterior.store_distribution(inferred["qz"])
        likelihood.store_distribution(px)
    # with several draws per cell, cells are on the second axis
    axis = int(request.n_samples > 1)
    qz = posterior.get_concatenated_distributions(axis=0)
    px = likelihood.get_concatenated_distributions(axis=axis)
    drawn = qz, px, torch.cat(draws, dim=axis)
    weights = get_importance_weights(request.model, request.adata, request.cells, *drawn, **kwargs)
    joined = torch.cat(values, dim=axis).flatten(0, -2).numpy()
    # in single precision, the sum may be too far from 1 for NumPy
    shares = np.asarray(weights, dtype=float)
    return joined[numpy_generator().choice(len(joined), n_draws, p=shares / shares.sum())]
