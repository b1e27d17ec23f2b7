"""The rate-distortion curve of a model, and the choice of a β from it."""

from __future__ import annotations

from dataclasses import dataclass
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
        Values of β. If None, 13 over the range trained on, with 1 if it is inside. A model of one β
        has one point, at the β its training ended with.
    indices, adata, batch_size
        Cells, by names, positions or a mask, and how many at once. If None, those held out from
        training, or all if fewer than 100 were or ``adata`` is another object. Few rare cells are
        held out: take all, ``np.arange(adata.n_obs)``, to see rare types.
    labels_key
        Column of ``obs`` with cell types, to see which of them a β blurs.
    n_samples
        Number of posterior draws that the distortion is averaged over.
    show_progress
        Show a progress bar.

    Returns
    -------
    One row per β, ascending. ``rate``, ``distortion`` (with the rate of a latent library size, if
    there is one) and ``elbo``, always at β = 1, are nats per cell; the rate of a deterministic
    model is infinite. ``active_dimensions`` and ``mutual_information`` are those of
    :func:`~betavi.diagnostics.active_dimensions` and
    :func:`~betavi.diagnostics.mutual_information`; the latter is at most the log of the number of
    cells. With labels, ``agreement_common`` and ``agreement_rare`` are means over types of
    :func:`~betavi.diagnostics.label_agreement`, among the labelled cells that are measured.
    ``attrs["rare"]`` names the rare types: less than 5 % of the labelled cells of the object, and at
    least two of the cells measured.

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
    model.refuse_minified()
    model._check_if_trained(warn=False)
    adata = model._validate_anndata(adata)
    points: dict[float, list[dict[str, torch.Tensor]]] = {b: [] for b in _betas(model, betas)}
    if indices is None:
        cells = model.held_out(adata)
    else:
        cells = cells_named(adata.obs_names, indices, "indices")
    types = None if labels_key is None else _types(adata, labels_key, cells)
    progress = "Measuring" if show_progress else None
    for tensors in model.minibatches(adata, cells, batch_size, progress=progress):
        for beta, parts in points.items():
            with model.at_beta(None if model.module.dial.is_fixed else beta):
                parts.append(_terms(model, tensors, n_samples))
    curve = pd.DataFrame(
        [{"beta": beta} | _summary(parts, types) for beta, parts in points.items()]
    )
    if types is not None:
        curve.attrs["rare"] = sorted(types.rare & types.measured())
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
    betas
        Values of β to choose from, see :meth:`rate_distortion`.
    indices
        Cells to judge by; those held out from training if None.
    show_progress
        Show a progress bar.

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
    dial = model.module.dial
    if dial.is_fixed:
        for beta in [] if betas is None else betas:
            model.module.check_beta(beta)
        return [model.module.settled_beta]
    return sorted({float(beta) for beta in (_spread(*dial.range) if betas is None else betas)})


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


@dataclass(frozen=True)
class _Types:
    """Types of the measured cells, and which types are rare."""

    names: np.ndarray
    is_known: np.ndarray
    rare: frozenset[str]

    def measured(self) -> set[str]:
        """Return the types with cells that could be each other's neighbours."""
        names, numbers = np.unique(self.names[self.is_known], return_counts=True)
        return {str(name) for name in names[numbers > 1]}

    def agreement(self, latent: np.ndarray) -> dict[str, float]:
        """Return the mean agreement of common and of rare types."""
        known = self.is_known
        found = label_agreement(latent[known], self.names[known])
        kinds = {"common": found.keys() - self.rare, "rare": found.keys() & self.rare}
        return {
            f"agreement_{kind}": float(np.mean([found[name] for name in names] or [np.nan]))
            for kind, names in kinds.items()
        }


def _types(adata: AnnOrMuData, key: str, cells: np.ndarray) -> _Types:
    if not isinstance(key, str):
        raise TypeError(f"labels_key is the name of one column of obs, not {key!r}.")
    if key not in adata.obs:
        raise KeyError(f"There is no adata.obs[{key!r}]. {close_matches(key, adata.obs.columns)}")
    # rare in the whole object, of which the measured cells may be few
    shares = adata.obs[key].value_counts(normalize=True)
    rare = frozenset(str(name) for name in shares.index[(shares > 0) & (shares < RARE)])
    column = adata.obs[key].iloc[cells]
    return _Types(column.astype(str).to_numpy(), column.notna().to_numpy(), rare)


def _summary(parts: list[dict[str, torch.Tensor]], types: _Types | None) -> dict[str, Any]:
    """Return a row of the curve."""
    whole = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    rate, distortion = whole["rate"].mean(), whole["distortion"].mean()
    posteriors = whole["loc"], whole["scale"]
    is_point = not posteriors[1].all()
    row = {
        "rate": rate,
        "distortion": distortion,
        "elbo": -(rate + distortion),
        "active_dimensions": posteriors[0].shape[1] if is_point else active_dimensions(*posteriors),
        "mutual_information": np.inf if is_point else mutual_information(*posteriors),
    }
    return row if types is None else row | types.agreement(posteriors[0])
