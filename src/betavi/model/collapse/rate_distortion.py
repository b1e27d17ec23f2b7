"""The rate-distortion curve of a model, and the choice of a β from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from betavi._tables import close_matches
from betavi.diagnostics import (
    BetaSuggestion,
    active_dimensions,
    label_agreement,
    mutual_information,
    suggest,
)
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel, Tensors

N_BETAS = 13
"""Points of a curve, evenly spaced on the log scale."""

RARE = 0.05
"""Share of the cells below which a type is rare."""


@torch.inference_mode()
def rate_distortion(
    model: LatentModel,
    betas: Sequence[float] | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    adata: AnnOrMuData | None = None,
    labels_key: str | None = None,
    n_samples: int = 5,
    batch_size: int | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Measure rate and distortion at every β, in one pass over the cells.

    Parameters
    ----------
    betas
        Values of β. If None, 13 over the range trained on, with 1 if it is inside; for a model of one
        β, the one that training ended with.
    indices, adata, batch_size
        Cells, by names, positions or a mask, and how many at once. If None, those held out from
        training, or all if fewer than 100 were or ``adata`` is another object. Few rare cells are
        held out: take all, ``np.arange(adata.n_obs)``, to see rare types.
    labels_key
        Column of ``obs`` with cell types, to see which of them a β blurs.
    n_samples
        Number of posterior draws per cell.
    show_progress
        Show a progress bar.

    Returns
    -------
    One row per β, ascending. ``rate``, ``distortion`` (with the rate of a latent library size, if
    there is one) and ``elbo``, always at β = 1, are nats per cell; the rate of a deterministic
    model is infinite. ``active_dimensions`` and ``mutual_information`` are those of
    ``betavi.diagnostics``; the latter is at most the log of the number of cells. With labels,
    ``agreement_common`` and ``agreement_rare`` are means over types of
    :func:`~betavi.diagnostics.label_agreement`, among the labelled cells that are measured, and
    ``attrs["rare"]`` names the types with less than 5 % of the labelled cells of the object, and two
    or more of the measured ones.

    Raises
    ------
    ValueError
        If the model was not trained at a β, or there are no cells.
    KeyError, IndexError, TypeError
        If there is no such column or cell, or ``labels_key`` is no name.
    RuntimeError
        If the model is not trained.

    References
    ----------
    Alemi et al. (2018), Fixing a broken ELBO.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, beta=(0.1, 10))
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.rate_distortion([0.1, 1, 10], show_progress=False).columns[:4].tolist()
    ['beta', 'rate', 'distortion', 'elbo']
    """
    model.refuse_minified("rate_distortion")
    model._check_if_trained(warn=False)
    adata = model._validate_anndata(adata)
    points: dict[float, list[dict[str, torch.Tensor]]] = {b: [] for b in _betas(model, betas)}
    if indices is None:
        cells = model.held_out(adata)
    else:
        cells = cells_named(adata.obs_names, indices, "indices")
    types = None if labels_key is None else _types(adata, labels_key)
    progress = "Measuring" if show_progress else None
    for tensors in model.minibatches(adata, cells, batch_size, progress=progress):
        for beta, parts in points.items():
            with model.at_beta(None if model.module.beta_condition.is_fixed else beta):
                parts.append(_terms(model, tensors, n_samples))
    whole = {
        beta: {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
        for beta, parts in points.items()
    }
    rows = [{"beta": beta} | _summary(**arrays) for beta, arrays in whole.items()]
    if types is None:
        return pd.DataFrame(rows)
    labels, rare = types[0].iloc[cells], types[1]
    curve = pd.DataFrame(
        [row | _agreement(whole[row["beta"]]["loc"], labels, rare) for row in rows]
    )
    numbers = labels.value_counts()
    curve.attrs["rare"] = sorted(rare & set(numbers.index[numbers > 1]))
    return curve


def suggest_beta(
    model: LatentModel,
    criterion: str = "held_out",
    rate: float | None = None,
    betas: Sequence[float] | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    show_progress: bool = True,
) -> BetaSuggestion:
    """Suggest a β, with the reason in words; the model stays as it is.

    Parameters
    ----------
    criterion, rate
        ``"held_out"``, ``"knee"``, or ``"rate"`` with its nats per cell: see
        :func:`betavi.diagnostics.suggest`.
    betas, indices, show_progress
        Values of β to choose from, and cells to judge by: those held out from training if None. See
        :meth:`rate_distortion`.

    Returns
    -------
    ``beta``, ``criterion`` and ``reason``.

    Raises
    ------
    ValueError
        If the model is of one β, the criterion is unknown, the rate is not on the curve, or no
        cell was held out.
    RuntimeError
        If the model is not trained.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, beta=(0.1, 10))
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.suggest_beta("knee", show_progress=False).criterion
    'knee'
    """
    model.refuse_minified("suggest_beta")
    model._check_if_trained(warn=False)
    if indices is None:
        indices = getattr(model, "validation_indices", None)
        if indices is None or not len(indices):
            raise ValueError(
                "The model held no cells out to judge by: train it with some, or name cells it "
                "has not seen, indices=..."
            )
    curve = rate_distortion(model, betas, indices, show_progress=show_progress)
    return suggest(curve, criterion, rate)


def _betas(model: LatentModel, betas: Sequence[float] | None) -> list[float]:
    """Return the values of β to measure at, ascending."""
    beta_condition = model.module.beta_condition
    if beta_condition.is_fixed:
        for beta in [] if betas is None else betas:
            model.module.check_beta(beta)
        return [model.module.settled_beta]
    return sorted(
        {float(beta) for beta in (_spread(*beta_condition.range) if betas is None else betas)}
    )


def _terms(model: LatentModel, tensors: Tensors, n_samples: int) -> dict[str, torch.Tensor]:
    """Return rate, distortion and posterior of each cell of a minibatch."""
    rate, distortion = torch.zeros(()), torch.zeros(())
    for _ in range(n_samples):
        inferred, _, losses = model.module.forward(tensors)
        rate = rate + losses.kl_local["kl_divergence_z"] / n_samples
        terms = sum(losses.reconstruction_loss.values()) + losses.kl_local["kl_divergence_l"]
        distortion = distortion + terms / n_samples
    qz = inferred["qz"]
    # naming a point takes infinitely many nats
    rate = rate.where((qz.scale > 0).all(dim=-1), torch.inf)
    found = {"rate": rate, "distortion": distortion, "loc": qz.loc, "scale": qz.scale}
    return {name: value.cpu().double() for name, value in found.items()}


def _spread(low: float, high: float) -> np.ndarray:
    """Return an even grid on the log scale, with both ends, and with 1 where it is inside."""
    betas = np.geomspace(low, high, N_BETAS)
    # logarithms leave the ends a little off
    betas[[0, -1]] = low, high
    if low < 1 < high:
        betas[1 + np.abs(np.log(betas[1:-1])).argmin()] = 1.0
    return betas


def _types(adata: AnnOrMuData, key: str) -> tuple[pd.Series, set[str]]:
    """Return the type of each cell as a string, NaN without one, and the rare types."""
    if not isinstance(key, str):
        raise TypeError(f"labels_key is the name of one column of obs, not {key!r}.")
    if key not in adata.obs:
        raise KeyError(f"There is no adata.obs[{key!r}]. {close_matches(key, adata.obs.columns)}")
    column = adata.obs[key]
    labels = column.astype(str).where(column.notna())
    shares = labels.value_counts(normalize=True)
    return labels, set(shares.index[shares < RARE])


def _agreement(latent: np.ndarray, labels: pd.Series, rare: set[str]) -> dict[str, float]:
    """Return the mean agreement of neighbours about common and about rare types."""
    known = labels.notna().to_numpy()
    found = label_agreement(latent[known], labels[known].to_numpy())
    kinds = {"common": found.keys() - rare, "rare": found.keys() & rare}
    return {
        f"agreement_{kind}": float(np.mean([found[name] for name in names] or [np.nan]))
        for kind, names in kinds.items()
    }


def _summary(
    rate: np.ndarray, distortion: np.ndarray, loc: np.ndarray, scale: np.ndarray
) -> dict[str, Any]:
    """Return a row of the curve."""
    is_point = not scale.all()
    return {
        "rate": rate.mean(),
        "distortion": distortion.mean(),
        "elbo": -(rate.mean() + distortion.mean()),
        "active_dimensions": loc.shape[1] if is_point else active_dimensions(loc, scale),
        "mutual_information": np.inf if is_point else mutual_information(loc, scale),
    }
