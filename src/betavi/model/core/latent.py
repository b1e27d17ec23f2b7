"""The latent representation of cells, from any of their modalities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.data._utils import _validate_adata_dataloader_input

from betavi.data import present_key
from betavi.model.core.beta import takes_beta
from betavi.model.setup.messages import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.model.core.latent_model import LatentModel, Tensors


@takes_beta
@torch.inference_mode()
def get_latent_representation(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    give_mean: bool = True,
    mc_samples: int = 5_000,
    batch_size: int | None = None,
    return_dist: bool = False,
    dataloader: Iterable[Tensors] | None = None,
    modalities: Sequence[str] | str | None = None,
    **data_loader_kwargs: Any,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Return the latent position of each cell.

    Parameters
    ----------
    adata, indices, batch_size, dataloader, **data_loader_kwargs
        Cells, and how many at once; or minibatches in place of an object.
    give_mean
        Return the mean of z instead of a draw.
    mc_samples
        Number of draws to average if z has no mean in closed form, as a logistic normal.
    return_dist
        Return mean and variance of the posterior; those of a whole mixture.
    modalities
        Modalities to infer z from; all that a cell has if None.

    Returns
    -------
    ``(n_cells, n_latent)``, or two such arrays. NaN where a cell has none of the modalities.

    Raises
    ------
    ValueError
        If a modality is unknown.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.simulate_multiome(n_cells=100)
    >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    >>> model = betavi.JointVI(mdata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_latent_representation(modalities="rna").shape
    (100, 5)
    """
    _validate_adata_dataloader_input(model, adata, dataloader)
    chosen = model.named_modalities(modalities)
    if dataloader is None:
        adata = model._validate_anndata(adata)
        dataloader = model._make_data_loader(adata, indices, batch_size, **data_loader_kwargs)
    first, second = [], []
    for tensors in dataloader:
        tensors = model.masked(tensors, chosen)
        inferred = model.infer(tensors)
        q, lost = inferred["qz"], ~_has_any(model, tensors)
        if return_dist:
            second.append(q.variance.cpu().masked_fill(lost, torch.nan))
            value = q.mean
        else:
            value = model.module.latent.mean(q, mc_samples) if give_mean else inferred["z"]
        first.append(value.cpu().masked_fill(lost, torch.nan))
    found = torch.cat(first).numpy()
    if n_lost := int(np.isnan(found[:, 0]).sum()):
        warn(f"{n_lost} cell(s) have none of the modalities asked for: their position is NaN.")
    return (found, torch.cat(second).numpy()) if return_dist else found


def _has_any(model: LatentModel, tensors: Tensors) -> Tensor:
    """Return a mask of the cells with any unmasked modality, ``(n_cells, 1)``."""
    keys = [key for key in map(present_key, model.modalities) if key in tensors]
    if not keys:
        return torch.ones(1, 1, dtype=torch.bool)
    return torch.stack([tensors[key] for key in keys]).any(dim=0).cpu()
