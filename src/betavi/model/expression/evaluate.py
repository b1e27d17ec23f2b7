"""Likelihood scores, likelihood parameters and library sizes, under scvi-tools' names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.model.base import VAEMixin
from scvi.utils import unsupported_if_adata_minified

from betavi.data import present_key
from betavi.model.core.beta import scvi_getter, takes_beta
from betavi.model.expression.decode import decoded_distribution

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.model.core.latent_model import LatentModel, Tensors

get_elbo = scvi_getter(VAEMixin.get_elbo)


@scvi_getter
def get_marginal_ll(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    n_mc_samples: int = 1_000,
    batch_size: int | None = None,
    return_mean: bool = True,
    dataloader: Iterator[Tensors] | None = None,
    data_loader_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Tensor | np.float64:
    """Estimate the log marginal likelihood by importance sampling, in nats per cell.

    Burda et al. (2016) describe the estimator. All cells have the same weight in the mean.
    scvi-tools averages the means of minibatches, which may differ in size.

    Parameters
    ----------
    adata, indices, batch_size, dataloader, data_loader_kwargs
        See :meth:`get_latent_representation`.
    n_mc_samples
        Number of posterior samples per cell.
    return_mean
        Return the mean over cells. If False, return one value per cell, ``(n_cells,)``.
    **kwargs
        ``n_mc_samples_per_pass``, the number of samples decoded at once.

    Raises
    ------
    ValueError
        If the model is deterministic. An autoencoder has no marginal likelihood.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_marginal_ll(n_mc_samples=2, return_mean=False).shape
    torch.Size([100])
    """
    kwargs |= {"dataloader": dataloader, "data_loader_kwargs": data_loader_kwargs}
    per_cell: Tensor = VAEMixin.get_marginal_ll(
        model, adata, indices, n_mc_samples, batch_size, return_mean=False, **kwargs
    )
    return np.float64(per_cell.double().mean().item()) if return_mean else per_cell


@scvi_getter
@unsupported_if_adata_minified
def get_reconstruction_error(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
    dataloader: Iterable[Tensors] | None = None,
    return_mean: bool = True,
    data_loader_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, Tensor]:
    """Return the distortion (negative log-likelihood) of each modality, in nats per cell.

    Parameters
    ----------
    adata, indices, batch_size, dataloader, data_loader_kwargs
        See :meth:`get_latent_representation`.
    return_mean
        Return the mean over the cells that have the modality. If False, return one value per cell.
    **kwargs
        Arguments of the module's ``forward``.

    Returns
    -------
    Dictionary with the key ``reconstruction_loss``. With several modalities, there is one key for
    each modality, such as ``reconstruction_loss_rna``. Each value is a mean or, with
    ``return_mean=False``, an array ``(n_cells,)`` with zeros for cells that lack the modality.

    Raises
    ------
    ValueError
        If the object is minified.

    References
    ----------
    Alemi et al. (2018), Fixing a broken ELBO.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, missing={"adt": 0.5})
    >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    >>> model = betavi.JointVI(mdata)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> sorted(model.get_reconstruction_error())
    ['reconstruction_loss_adt', 'reconstruction_loss_rna']
    """
    options = data_loader_kwargs or {}
    minibatches = model.user_minibatches(dataloader, adata, indices, batch_size, **options)
    masks: dict[str, list[Tensor]] = {}

    def with_masks_stored() -> Iterator[Tensors]:
        for tensors in minibatches:
            for name in model.modalities:
                if (key := present_key(name)) in tensors:
                    masks.setdefault(name, []).append(tensors[key].squeeze(1))
            yield tensors

    found: dict[str, Tensor] = VAEMixin.get_reconstruction_error(
        model, dataloader=with_masks_stored(), return_mean=False, **kwargs
    )
    measured = {}
    for name in model.modalities:
        nats = found[key := model.module.distortion_key(name)]
        has = torch.cat(masks[name]).to(nats.device) if name in masks else torch.ones_like(nats) > 0
        if has.any():
            measured[key] = nats[has].mean() if return_mean else nats
    return measured


@scvi_getter
@torch.inference_mode()
def get_likelihood_parameters(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int | None = 1,
    give_mean: bool | None = False,
    batch_size: int | None = None,
    dataloader: Iterable[Tensors] | None = None,
    **data_loader_kwargs: Any,
) -> dict[str, Any]:
    """Return the parameters of p(x given z), as SCVI does (Lopez et al., 2018).

    Parameters
    ----------
    adata, indices, batch_size, dataloader, **data_loader_kwargs
        See :meth:`get_latent_representation`.
    n_samples
        Number of posterior samples per cell.
    give_mean
        Return the mean over the samples.

    Returns
    -------
    Dictionary with ``mean``, and with ``dispersions`` and ``dropout`` if the likelihood has them.
    Each value is ``([n_samples,] n_cells, n_features)``. With several modalities, a dictionary of
    such dictionaries. As in SCVI, the mean of a zero-inflated likelihood is the mean before
    inflation. If cells may lack modalities, the means are for a cell of typical library size.

    Raises
    ------
    ValueError
        If ``n_samples`` is not a whole number of at least 1.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> sorted(model.get_likelihood_parameters())
    ['dispersions', 'dropout', 'mean']
    """
    n_samples = 1 if n_samples is None else n_samples
    parts: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in model.modalities}
    for tensors in model.user_minibatches(
        dataloader, adata, indices, batch_size, **data_loader_kwargs
    ):
        inferred = model.infer(tensors, n_samples)
        for name, collected in parts.items():
            px = decoded_distribution(model, tensors, inferred, name, None)
            for word, value in model.likelihood(name).parameters_of(px).items():
                if give_mean and n_samples > 1:
                    value = value.mean(dim=0)
                collected.setdefault(word, []).append(value.cpu().numpy())

    def joined(collected: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
        return {word: np.concatenate(values, axis=-2) for word, values in collected.items()}

    return model.adapter.bare({name: joined(collected) for name, collected in parts.items()})


@takes_beta
@torch.inference_mode()
@unsupported_if_adata_minified
def get_latent_library_size(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    give_mean: bool = True,
    batch_size: int | None = None,
    dataloader: Iterable[Tensors] | None = None,
    **data_loader_kwargs: Any,
) -> np.ndarray:
    """Return each cell's library size, inferred (Lopez et al., 2018) or observed, ``(n_cells, 1)``.

    Parameters
    ----------
    adata, indices, batch_size, dataloader, **data_loader_kwargs
        See :meth:`get_latent_representation`.
    give_mean
        Return the posterior mean of an inferred library size. If False, return a posterior sample.
        If the model does not infer library sizes, only False is possible, and returns the observed
        size.

    Raises
    ------
    RuntimeError
        If the model is not trained, or ``give_mean`` is True and the model infers no library size.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, use_observed_lib_size=False)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_latent_library_size().shape
    (100, 1)
    """
    model.refuse_images("get_latent_library_size", "Images have no library size.")
    (name,) = model.modalities
    parts = []
    for tensors in model.user_minibatches(
        dataloader, adata, indices, batch_size, **data_loader_kwargs
    ):
        inferred = model.infer(tensors)
        if not give_mean:
            parts.append(inferred["library"][name].exp().cpu())
            continue
        if name not in inferred["ql"]:
            raise RuntimeError(
                "`give_mean=True` needs inferred library sizes, but the model uses observed library "
                "sizes. Pass give_mean=False, or train with use_observed_lib_size=False."
            )
        ql = inferred["ql"][name]
        parts.append(torch.distributions.LogNormal(ql.loc, ql.scale).mean.cpu())
    return torch.cat(parts).numpy()
