"""Rate-distortion curve of a model, and choice of β on the curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from betavi import diagnostics
from betavi.model.setup.arguments import check_arguments
from betavi.model.setup.check_obs import obs_column
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.diagnostics import BetaSuggestion
    from betavi.model.core.latent_model import LatentModel, Tensors

N_BETAS = 13
"""Number of points of a curve, evenly spaced on the log scale. Not tuned."""

RARE = 0.05
"""Share of the cells below which a cell type is rare. Not tuned."""


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
    """Measure rate and distortion at several β in one pass over the cells.

    Parameters
    ----------
    betas
        Values of β. If None: for a model trained on a range of β, 13 values over the range, with 1
        if the range contains 1; for a model trained at one β, the β at the end of training.
    indices
        Names, positions or a mask of the cells to measure. If None, the held-out cells. If fewer
        than 100 cells were held out, or ``adata`` is another object, all cells. The held-out cells
        contain few cells of rare types. To measure rare types, pass all cells:
        ``np.arange(adata.n_obs)``.
    adata
        Object with the cells. If None, the model's own object.
    labels_key
        Column of ``obs`` with cell types, to measure which types a β mixes.
    n_samples
        Number of posterior samples per cell.
    batch_size
        Number of cells per minibatch. If None, scvi-tools' default.
    show_progress
        Show a progress bar.

    Returns
    -------
    Data frame, one row per β, ascending. ``rate`` (KL divergence from the prior), ``distortion``
    (negative log-likelihood) and ``elbo`` are in nats per cell. The distortion includes the rate of
    an inferred library size. The ELBO is always at β = 1. The rate of a deterministic model is
    infinite. ``active_dimensions`` and ``mutual_information`` are the results of the functions with
    the same names in ``betavi.diagnostics``. The mutual information is at most the log of the
    number of cells. With ``labels_key``, ``agreement_common`` and ``agreement_rare`` are means of
    :func:`~betavi.diagnostics.label_agreement` over the common and over the rare types, among the
    measured cells with a label. ``attrs["rare"]`` lists the rare types. A rare type has at least
    two measured cells, but less than 5 % of the labelled cells of the object. ``LMS``, ``MSAS`` and
    ``MSGS`` measure if single dimensions match types, see
    :func:`betavi.metrics.disentanglement`. All three need many cells of each type: pass all cells.

    Raises
    ------
    ValueError
        If the model was not trained at one of the ``betas``, or ``indices`` selects no cells.
    KeyError
        If the column ``labels_key`` or a named cell does not exist.
    IndexError
        If the position of a cell is out of range.
    TypeError
        If ``labels_key`` is not a name.
    RuntimeError
        If the model is not trained.

    References
    ----------
    Alemi et al. (2018), Fixing a broken ELBO. Moinfar & Theis (2024), Unsupervised deep
    disentangled representation of single-cell omics (LMS, MSAS, MSGS).

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
    check_arguments({"n_samples": n_samples, "batch_size": batch_size})
    model.refuse_minified("rate_distortion")
    model._check_if_trained(warn=False)
    adata = model._validate_anndata(adata)
    measured: dict[float, list[dict[str, torch.Tensor]]] = {b: [] for b in _betas(model, betas)}
    names = adata.obs_names
    cells = model.held_out(adata) if indices is None else cells_named(names, indices, "indices")
    labels, rare = _types(adata, labels_key)
    progress = "Measuring" if show_progress else None
    for tensors in model.minibatches(adata, cells, batch_size, progress=progress):
        for beta, parts in measured.items():
            with model.at_beta(None if model.module.beta_condition.is_fixed else beta):
                parts.append(_terms(model, tensors, n_samples))
    rows = []
    for beta, parts in measured.items():
        arrays = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
        row = {"beta": beta} | _summary(**arrays)
        if labels is not None:
            row |= _agreement(arrays["loc"], labels.iloc[cells], rare)
            row |= _axes(arrays["loc"], labels.iloc[cells])
        rows.append(row)
    curve = pd.DataFrame(rows)
    if labels is not None:
        numbers = labels.iloc[cells].value_counts()
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
    """Suggest a β, with the reason in words. The model is not changed.

    Parameters
    ----------
    criterion
        ``"held_out"``, ``"knee"`` or ``"rate"``, see :func:`betavi.diagnostics.suggest`.
    rate
        For ``criterion="rate"``: the rate (KL divergence from the prior), nats per cell.
    betas, indices, show_progress
        See :meth:`rate_distortion`. If ``indices`` is None, the held-out cells are measured.

    Returns
    -------
    ``beta``, ``criterion`` and ``reason``.

    Raises
    ------
    ValueError
        If the model was trained at a single β, the criterion is unknown, the rate is not on the
        curve, or no cells were held out.
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
                "No cells were held out to judge β. Train with train(train_size=0.9). Or, pass "
                "cells that the model was not trained on: suggest_beta(indices=...)"
            )
    curve = rate_distortion(model, betas, indices, show_progress=show_progress)
    return diagnostics.suggest(curve, criterion, rate)


def _betas(model: LatentModel, betas: Sequence[float] | None) -> list[float]:
    beta_condition = model.module.beta_condition
    if beta_condition.is_fixed:
        for beta in [] if betas is None else betas:
            model.module.check_beta(beta)
        return [model.module.settled_beta]
    return sorted({float(b) for b in (_grid(*beta_condition.range) if betas is None else betas)})


def _terms(model: LatentModel, tensors: Tensors, n_samples: int) -> dict[str, torch.Tensor]:
    """Return rate and distortion, ``(n_cells,)``, and the posterior of a minibatch."""
    rate, distortion = torch.zeros(()), torch.zeros(())
    for _ in range(n_samples):
        inferred, _, losses = model.module.forward(tensors)
        rate = rate + losses.kl_local["kl_divergence_z"] / n_samples
        terms = sum(losses.reconstruction_loss.values()) + losses.kl_local["kl_divergence_l"]
        distortion = distortion + terms / n_samples
    qz = inferred["qz"]
    # the rate of a point is infinite
    rate = rate.where((qz.scale > 0).all(dim=-1), torch.inf)
    parts = {"rate": rate, "distortion": distortion, "loc": qz.loc, "scale": qz.scale}
    return {name: value.cpu().double() for name, value in parts.items()}


def _grid(low: float, high: float) -> np.ndarray:
    """Return an even grid on the log scale, with both ends, and with 1 if it is inside."""
    betas = np.geomspace(low, high, N_BETAS)
    # rounding moves the ends
    betas[[0, -1]] = low, high
    if low < 1 < high:
        betas[1 + np.abs(np.log(betas[1:-1])).argmin()] = 1.0
    return betas


def _types(adata: AnnOrMuData, key: str | None) -> tuple[pd.Series | None, set[str]]:
    """Return the type of each cell as a string, NaN without a type, and the rare types."""
    if key is None:
        return None, set()
    column = obs_column(adata, key)
    labels = column.astype(str).where(column.notna())
    shares = labels.value_counts(normalize=True)
    return labels, set(shares.index[shares < RARE])


def _agreement(latent: np.ndarray, labels: pd.Series, rare: set[str]) -> dict[str, float]:
    """Return the mean label agreement over common types and over rare types."""
    known = labels.notna().to_numpy()
    agreement = diagnostics.label_agreement(latent[known], labels[known].to_numpy())
    kinds = {"common": agreement.keys() - rare, "rare": agreement.keys() & rare}
    return {
        f"agreement_{kind}": float(np.mean([agreement[name] for name in names] or [np.nan]))
        for kind, names in kinds.items()
    }


def _axes(latent: np.ndarray, labels: pd.Series) -> dict[str, float]:
    """Return how well single dimensions match types, NaN for cells of one type."""
    known = labels.notna().to_numpy()
    if labels.nunique() < 2:
        return dict.fromkeys(("LMS", "MSAS", "MSGS"), np.nan)
    scores = diagnostics.label_information(latent[known], labels[known].to_numpy())
    return diagnostics.axis_scores(scores.to_numpy())


def _summary(
    rate: np.ndarray, distortion: np.ndarray, loc: np.ndarray, scale: np.ndarray
) -> dict[str, Any]:
    n_active, information = loc.shape[1], np.inf
    # a deterministic model has a scale of 0
    if scale.all():
        n_active = diagnostics.active_dimensions(loc, scale)
        information = diagnostics.mutual_information(loc, scale)
    return {
        "rate": rate.mean(),
        "distortion": distortion.mean(),
        "elbo": -(rate.mean() + distortion.mean()),
        "active_dimensions": n_active,
        "mutual_information": information,
    }
