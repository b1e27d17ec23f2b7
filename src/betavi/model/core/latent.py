"""Latent representation of cells, from any of their modalities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

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
    adata
        Data to encode. If None, the model's own data.
    indices
        Names, positions or a mask of cells. If None, all cells.
    batch_size
        Number of cells per minibatch. If None, scvi-tools' default.
    dataloader
        Minibatches to read in place of ``adata``.
    **data_loader_kwargs
        Options of scvi-tools' data loader.
    give_mean
        Return the posterior mean of z. If False, return one posterior sample.
    mc_samples
        With ``latent_distribution="ln"``, the mean of z has no closed form: number of samples to
        average.
    return_dist
        Return the mean and the variance of the posterior. For a mixture of experts, these are the
        moments of the whole mixture.
    modalities
        Modalities to infer z from. If None, all modalities that a cell has.

    Returns
    -------
    Positions, ``(n_cells, n_latent)``, or mean and variance in this shape. A cell without any of
    the modalities has NaN. A warning gives the number of these cells.

    Raises
    ------
    ValueError
        If a modality is unknown, or both ``adata`` and ``dataloader`` are passed.

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
    chosen = model.named_modalities(modalities)
    positions, variances = [], []
    for tensors in model.user_minibatches(
        dataloader, adata, indices, batch_size, **data_loader_kwargs
    ):
        tensors = model.masked(tensors, chosen)
        inferred = model.infer(tensors)
        q, lacks_all = inferred["qz"], ~_has_any_modality(model, tensors)
        if return_dist:
            variances.append(q.variance.cpu().masked_fill(lacks_all, torch.nan))
            value = q.mean
        else:
            value = model.module.latent.mean(q, mc_samples) if give_mean else inferred["z"]
        positions.append(value.cpu().masked_fill(lacks_all, torch.nan))
    found = torch.cat(positions).numpy()
    if n_missing := int(np.isnan(found[:, 0]).sum()):
        warn(
            f"{n_missing} cell(s) have none of the modalities {', '.join(map(repr, chosen))}. The "
            "latent position of these cells is NaN. Pass `indices` to leave these cells out."
        )
    return (found, torch.cat(variances).numpy()) if return_dist else found


def _has_any_modality(model: LatentModel, tensors: Tensors) -> Tensor:
    """Return a mask of the cells with any unmasked modality, ``(n_cells, 1)``."""
    keys = [key for key in map(present_key, model.modalities) if key in tensors]
    if not keys:
        return torch.ones(1, 1, dtype=torch.bool)
    return torch.stack([tensors[key] for key in keys]).any(dim=0).cpu()
