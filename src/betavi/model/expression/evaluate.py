"""Scores of cells and parameters of likelihoods, under scvi-tools' names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.data._utils import _validate_adata_dataloader_input
from scvi.model.base import VAEMixin
from scvi.utils import unsupported_if_adata_minified

from betavi._tables import check_whole
from betavi.data import present_key
from betavi.model.core.beta import scvi_getter, takes_beta
from betavi.model.expression.decode import decoded_log_size

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

    Every cell has the same weight; scvi-tools averages the means of minibatches, which may differ
    in size.

    Parameters
    ----------
    adata, indices, batch_size, dataloader, data_loader_kwargs
        Cells, and how many at once; or minibatches in place of an object.
    n_mc_samples
        Number of posterior draws per cell.
    return_mean
        Return the mean over the cells.
    **kwargs
        ``n_mc_samples_per_pass``, the number of draws decoded at once.

    Returns
    -------
    Estimates, ``(n_cells,)``, or their mean.

    Raises
    ------
    ValueError
        If the model is deterministic: an autoencoder has no marginal likelihood.

    References
    ----------
    Burda et al. (2016), Importance weighted autoencoders.

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
    per_cell: Tensor = VAEMixin.get_marginal_ll(
        model,
        adata,
        indices,
        n_mc_samples,
        batch_size,
        return_mean=False,
        dataloader=dataloader,
        data_loader_kwargs=data_loader_kwargs,
        **kwargs,
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
    """Return the distortion of each modality, in nats per cell.

    Parameters
    ----------
    adata, indices, batch_size, dataloader, data_loader_kwargs
        Cells, and how many at once; or minibatches in place of an object.
    return_mean
        Average over the cells that have the modality.
    **kwargs
        Passed to the module's ``forward``.

    Returns
    -------
    ``reconstruction_loss``, or ``reconstruction_loss_*`` of several modalities: a mean, or
    ``(n_cells,)`` with zeros where a cell lacks the modality.

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
    _validate_adata_dataloader_input(model, adata, dataloader)
    if dataloader is None:
        adata = model._validate_anndata(adata)
        options = data_loader_kwargs or {}
        dataloader = model._make_data_loader(adata, indices, batch_size, **options)
    masks: dict[str, list[Tensor]] = {}

    def watched() -> Iterator[Tensors]:
        """Yield minibatches, and store their masks of measured cells."""
        for tensors in dataloader:
            for name in model.modalities:
                if (key := present_key(name)) in tensors:
                    masks.setdefault(name, []).append(tensors[key].squeeze(1))
            yield tensors

    found: dict[str, Tensor] = VAEMixin.get_reconstruction_error(
        model, dataloader=watched(), return_mean=False, **kwargs
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
    """Return the parameters of p(x given z), for every likelihood.

    Parameters
    ----------
    adata, indices, batch_size, dataloader, **data_loader_kwargs
        Cells, and how many at once; or minibatches in place of an object.
    n_samples, give_mean
        Number of posterior draws per cell; average over them.

    Returns
    -------
    ``mean``, ``dispersions`` and ``dropout`` where the likelihood has them, each
    ``([n_samples,] n_cells, n_features)``; with several modalities a dictionary of these for each.
    The mean of a zero-inflated likelihood is that before inflation, as in SCVI. Where cells may
    lack modalities, means are those at the typical library size.

    Raises
    ------
    ValueError
        If the number of draws is not a whole number of at least 1.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

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
    _validate_adata_dataloader_input(model, adata, dataloader)
    n_samples = 1 if n_samples is None else n_samples
    check_whole("n_samples", n_samples)
    if dataloader is None:
        adata = model._validate_anndata(adata)
        dataloader = model._make_data_loader(adata, indices, batch_size, **data_loader_kwargs)
    parts: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in model.modalities}
    for tensors in dataloader:
        inferred = model.infer(tensors, n_samples)
        for name, collected in parts.items():
            size = decoded_log_size(model, tensors, inferred, name)
            px = model.decode(inferred["z"], tensors, name, size)
            for word, value in model.likelihood(name).parameters_of(px).items():
                if give_mean and n_samples > 1:
                    value = value.mean(dim=0)
                collected.setdefault(word, []).append(value.cpu().numpy())
    found = {
        name: {word: np.concatenate(values, axis=-2) for word, values in collected.items()}
        for name, collected in parts.items()
    }
    return model.adapter.bare(found)


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
    """Return the inferred or observed library size of each cell.

    Parameters
    ----------
    adata, indices, batch_size, dataloader, **data_loader_kwargs
        Cells, and how many at once; or minibatches in place of an object.
    give_mean
        Return the mean of the inferred size; a draw of it, or the observed size, if False.

    Returns
    -------
    Library sizes, ``(n_cells, 1)``.

    Raises
    ------
    RuntimeError
        If the model is not trained, or infers no library size and its mean is requested.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

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
    _validate_adata_dataloader_input(model, adata, dataloader)
    if dataloader is None:
        adata = model._validate_anndata(adata)
        dataloader = model._make_data_loader(adata, indices, batch_size, **data_loader_kwargs)
    (name,) = model.modalities
    parts = []
    for tensors in dataloader:
        inferred = model.infer(tensors)
        if not give_mean:
            parts.append(inferred["library"][name].exp().cpu())
            continue
        if name not in inferred["ql"]:
            raise RuntimeError(
                "The model observes library sizes and infers none. Pass give_mean=False for the "
                "observed sizes, or train with use_observed_lib_size=False."
            )
        ql = inferred["ql"][name]
        parts.append(torch.distributions.LogNormal(ql.loc, ql.scale).mean.cpu())
    return torch.cat(parts).numpy()
