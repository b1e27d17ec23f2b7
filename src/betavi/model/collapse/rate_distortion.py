"""The rate-distortion curve of a model, and the choice of a β from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi.utils import unsupported_if_adata_minified

from betavi._tables import close_matches
from betavi.diagnostics import (
    BetaSuggestion,
    active_dimensions,
    label_agreement,
    mutual_information,
    suggest,
)
from betavi.model.core._transition import Transition, in_turn
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

N_BETAS = 13
"""Points of a curve, evenly spaced on the log scale."""

RARE = 0.05
"""A type of cells that makes up less than this share of them is rare."""


class RateDistortionMixin(Transition):
    """What β buys, and what it costs."""

    @torch.inference_mode()
    @unsupported_if_adata_minified
    def rate_distortion(
        self,
        betas: Sequence[float] | None = None,
        indices: Sequence[int] | None = None,
        adata: AnnData | None = None,
        labels_key: str | None = None,
        n_samples: int = 5,
        batch_size: int | None = None,
        show_progress: bool = True,
    ) -> pd.DataFrame:
        """Measure rate and distortion at every β, in one pass over the cells.

        Parameters
        ----------
        betas
            Where to measure; if None, 13 values over the range trained on, 1 among them if it is
            within. A model of one β has one point, at the β its training ended with.
        indices
            Cells: names, positions or a mask. If None, those held out in training, or all where these
            are fewer than 100 or ``adata`` is another object. All are ``np.arange(adata.n_obs)``: to
            see rare types, of which few are held out.
        adata
            Another object of the same genes; the model's own if None.
        labels_key
            Column of ``obs`` with cell types, to see which of them a β blurs.
        n_samples
            Draws from each posterior that the distortion is averaged over.
        batch_size
            Cells at once.
        show_progress
            Show a bar.

        Returns
        -------
        One row per β, ascending, in nats per cell but for the counts and shares: ``beta``;
        ``rate``; ``distortion``, with the rate of a latent library size if there is one; ``elbo``,
        always at β = 1; ``active_dimensions``, see
        :func:`~betavi.diagnostics.active_dimensions`; ``mutual_information``, see
        :func:`~betavi.diagnostics.mutual_information`, which is at most the log of the number of
        cells. With labels, the mean over types of
        :func:`~betavi.diagnostics.label_agreement`, ``agreement_common`` and ``agreement_rare``;
        ``attrs["rare"]`` names the rare types, which make up less than 5 % of the labelled cells of
        the object and of which at least two are measured. Neighbours are searched among the labelled cells that are measured. Of a
        deterministic model the rate is infinite.

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
        self._check_if_trained(warn=False)
        adata = self._validate_anndata(adata)
        asked = self._betas(betas)
        if indices is None:
            cells = self._cells_to_judge(adata)
        else:
            cells = cells_named(adata.obs_names, indices, "indices")
        types = None if labels_key is None else _types(adata, labels_key, cells)
        loader = self._make_data_loader(adata=adata, indices=cells, batch_size=batch_size)
        collected: dict[float, list[dict[str, torch.Tensor]]] = {beta: [] for beta in asked}
        for tensors in in_turn(loader, "Measuring", show_progress):
            for beta, parts in collected.items():
                with self._at(None if self.module.dial.is_fixed else beta):
                    parts.append(self._terms(tensors, n_samples))
        curve = pd.DataFrame(
            [{"beta": beta} | _summary(parts, types) for beta, parts in collected.items()]
        )
        if types is not None:
            curve.attrs["rare"] = sorted(types.rare & types.measured())
        return curve

    def suggest_beta(
        self,
        criterion: str = "held_out",
        rate: float | None = None,
        betas: Sequence[float] | None = None,
        indices: Sequence[int] | None = None,
        show_progress: bool = True,
    ) -> BetaSuggestion:
        """Suggest a β, with the reason in words; nothing of the model is changed.

        Parameters
        ----------
        criterion
            ``"held_out"``, the highest ELBO; ``"knee"``, where the curve bends most; or ``"rate"``,
            the β that spends ``rate`` nats per cell.
        rate
            For the last of them.
        betas
            Among which to choose, see :meth:`rate_distortion`.
        indices
            Cells to judge by; those held out in training if None.
        show_progress
            Show a bar.

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
        self._check_if_trained(warn=False)
        if indices is None:
            indices = getattr(self, "validation_indices", None)
            if indices is None or not len(indices):
                raise ValueError(
                    "The model held no cells out to judge by: train it with some, or name cells it "
                    "has not seen, indices=..."
                )
        curve = self.rate_distortion(betas, indices, show_progress=show_progress)
        return suggest(curve, criterion, rate)

    def _betas(self, betas: Sequence[float] | None) -> list[float]:
        dial = self.module.dial
        if dial.is_fixed:
            for beta in [] if betas is None else betas:
                self.module.check_beta(beta)
            return [self.module.settled_beta]
        asked = _spread(*dial.range) if betas is None else betas
        return sorted({float(beta) for beta in asked})

    def _terms(self, tensors: dict[str, Any], n_samples: int) -> dict[str, torch.Tensor]:
        """Return what the curve is made of, for each cell of a minibatch."""
        rate, distortion = torch.zeros(()), torch.zeros(())
        for _ in range(n_samples):
            inferred, _, losses = self.module.forward(tensors)
            library = losses.kl_local["kl_divergence_l"]
            rate = rate + losses.kl_local["kl_divergence_z"] / n_samples
            terms = sum(losses.reconstruction_loss.values()) + library
            distortion = distortion + terms / n_samples
        qz = inferred["qz"]
        # a point would need infinitely many nats to be named
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
    """The types of the cells that are measured, and which types are rare."""

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


def _types(adata: AnnData, key: str, cells: np.ndarray) -> _Types:
    if not isinstance(key, str):
        raise TypeError(f"labels_key is the name of one column of obs, not {key!r}.")
    if key not in adata.obs:
        raise KeyError(f"There is no adata.obs[{key!r}]. {close_matches(key, adata.obs.columns)}")
    # what is rare is a matter of the whole object, of which these may be a few cells
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
