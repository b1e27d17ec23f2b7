"""Positions to generate cells at: of the prior, of the aggregate posterior, around cells, or given."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS, settings

from betavi._tables import check_whole, lookup
from betavi.data import COUNTS
from betavi.model.core.covariates import batch_codes
from betavi.model.core.density import CELLS_AT_ONCE
from betavi.model.generation.nearest_cells import Lenders, some_of
from betavi.model.setup.selection import cells_named
from betavi.model.support.support import SupportMixin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from betavi.diagnostics import LatentDensity

SOURCES: dict[str, str] = {
    "prior": "where the model supposes cells before it has seen any",
    "aggregate": "where cells are, as a fitted density says",
    "cells": "around measured cells, as their posteriors say",
}
"""Where generated cells come from, by the user's word."""

SMALLEST_TOTAL = 1e-12


class Order(NamedTuple):
    """What is to be generated.

    Parameters
    ----------
    source
        A key of :data:`SOURCES`.
    n_cells
        How many.
    measured
        Measured cells: around each of these in its turn, or those that lend to cells that are near.
    latent
        Positions, in the place of draws, if they are given, ``(n_cells, n_latent)``.
    batch
        What all of them are decoded as, if not as the measured ones.
    rng, seed
        Of the draws.
    totals
        Expected totals that were asked for, by modality, ``(n_cells,)``.
    """

    source: str
    n_cells: int
    measured: np.ndarray
    latent: np.ndarray | None
    batch: str | int | None
    rng: np.random.Generator
    seed: int | None
    totals: Mapping[str, np.ndarray]

    @property
    def said(self) -> dict[str, Any]:
        """What an object of generated cells says of where they are from."""
        said = {"source": self.source if self.latent is None else "latent", "seed": self.seed}
        return {word: value for word, value in said.items() if value is not None}

    @property
    def is_around_cells(self) -> bool:
        """Whether each is drawn from the posterior of a measured cell."""
        return self.source == "cells" and self.latent is None


class Draft(NamedTuple):
    """Some of the cells to be: measured ones like them, a minibatch of these, and positions.

    Positions are those before z is made of them. ``totals`` are those asked for, by modality,
    ``(n_cells, 1)``.
    """

    near: np.ndarray
    tensors: dict[str, Any]
    positions: np.ndarray
    totals: dict[str, Tensor]


class DrawsMixin(SupportMixin):
    """What both models need to generate cells."""

    def _order(
        self,
        n_cells: int | None,
        batch: str | int | None,
        source: str,
        cells: Any,
        latent: np.ndarray | None,
        seed: int | None,
        totals: Mapping[str, Any],
    ) -> Order:
        """Check what was asked for, and choose patterns."""
        _check_order(source, batch, cells, latent, seed)
        if latent is not None:
            latent = self._checked_positions(latent)
            n_cells = len(latent) if n_cells is None else n_cells
        # cells that are named may be decoded as if in another batch than theirs
        if cells is None:
            some = self._of_batch(batch)
        else:
            batch_codes(self.adata_manager, batch)
            some = cells_named(self.adata.obs_names, cells, "cells")
            n_cells = len(some) if n_cells is None else n_cells
        if n_cells is None:
            raise ValueError("Say how many cells: n_cells=.")
        check_whole("n_cells", n_cells)
        if source == "prior" and latent is None and self.module.latent.has_no_rate:
            raise ValueError(
                "A deterministic autoencoder was not trained towards any prior. Generate from where "
                "its cells are: source='aggregate'."
            )
        seed = seed if seed is not None else settings.seed
        rng = np.random.default_rng(seed)
        if source == "cells" and latent is None:
            # every cell as often as the others, as far as that goes
            some = np.resize(some, n_cells) if cells is not None else rng.choice(some, n_cells)
        if latent is not None:
            latent = latent[np.resize(np.arange(len(latent)), n_cells)]
        sizes = {name: _one_each(name, size, n_cells) for name, size in totals.items()}
        return Order(source, n_cells, some, latent, batch, rng, seed, sizes)

    def _check_size_of(self, name: str, size: Any) -> None:
        """Refuse what is no size, or that of a modality which reads none."""
        numbers = np.asarray(size)
        if numbers.dtype.kind not in "iuf" or not ((numbers > 0) & np.isfinite(numbers)).all():
            raise ValueError(f"library_size{_of(name)} is a positive number, not {size!r}.")
        if not self.module.likelihoods[name].reads_size:
            raise ValueError(f"How much of {name!r} there is is decoded, and no size sets it.")

    def _sized(
        self, name: str, z: Tensor, tensors: dict[str, Any], log_size: Tensor, wanted: Tensor
    ) -> Tensor:
        """Return the log size to decode with, so that the expected total is the one wanted.

        Of detection there is no total but a depth, which the decoder reads as it is.
        """
        likelihood: Any = self.module.likelihoods[name]
        if not likelihood.is_of_counts:
            return wanted
        # a zero-inflated likelihood takes the size for that of a cell without its dropouts
        px = self._px(z, tensors, name, log_size)
        total = likelihood.expected(px).sum(dim=-1, keepdim=True).clamp_min(SMALLEST_TOTAL)
        return log_size + wanted - total.log()

    def _of_batch(self, batch: str | int | None) -> np.ndarray:
        """Return the cells of a batch, or all of them."""
        (code,) = batch_codes(self.adata_manager, batch)
        codes = self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
        cells = np.arange(len(codes)) if code is None else np.flatnonzero(codes == code)
        if not len(cells):
            raise ValueError(f"The model's object has no cells of the batch {batch!r}.")
        return cells

    def _lenders(self, order: Order) -> Lenders:
        cells = some_of(order.measured, order.rng)
        return Lenders(cells, self._posteriors(self.adata, cells, n_draws=0).mean, order.rng)

    def _registered(self, order: Order, near: np.ndarray) -> pd.DataFrame:
        """Return the columns that the model reads, those of measured cells."""
        args = self.registry_["setup_args"]
        obs = pd.DataFrame(index=range(len(near)))
        for column in registered_columns(args):
            obs[column] = self.adata.obs[column].iloc[near].to_numpy()
        if order.batch is not None and args["batch_key"] is not None:
            obs[args["batch_key"]] = order.batch
        return obs

    def _density_of(self, order: Order, show_progress: bool) -> LatentDensity | None:
        """Return the density that positions are drawn from, if they are."""
        return self.latent_density(show_progress) if order.source == "aggregate" else None

    def _drafts(self, order: Order, density: LatentDensity | None) -> Iterator[Draft]:
        """Yield what cells are to be made of, some at a time."""
        lenders = None if order.is_around_cells else self._lenders(order)
        (code,) = batch_codes(self.adata_manager, order.batch)
        for start in range(0, order.n_cells, CELLS_AT_ONCE):
            now = slice(start, min(start + CELLS_AT_ONCE, order.n_cells))
            if lenders is None:
                near = order.measured[now]
                tensors = self._minibatch(near)
                positions = _numpy(self._inferred(tensors)["qz"].sample())
            else:
                positions = self._positions_at(order, density, now)
                near = lenders.near(positions)
                tensors = self._minibatch(near)
            if code is not None:
                batch = torch.full_like(tensors[REGISTRY_KEYS.BATCH_KEY], code)
                tensors = tensors | {REGISTRY_KEYS.BATCH_KEY: batch}
            totals = {
                name: torch.as_tensor(sizes[now, None], device=self.device)
                for name, sizes in order.totals.items()
            }
            yield Draft(near, tensors, positions, totals)

    def _minibatch(self, cells: np.ndarray) -> dict[str, Any]:
        """Return the tensors of some cells, in order."""
        loader = self._make_data_loader(self.adata, cells, batch_size=len(cells))
        tensors: dict[str, Any] = next(iter(loader))
        return tensors

    def _positions_at(self, order: Order, density: LatentDensity | None, now: slice) -> np.ndarray:
        """Return positions that are given, of the fitted density, or of the prior."""
        n_cells = now.stop - now.start
        if order.latent is not None:
            return order.latent[now]
        if density is not None:
            return density.sample(n_cells, order.rng)
        return _numpy(self.module.current_prior().sample((n_cells,)))


def _check_order(source: str, batch: Any, cells: Any, latent: Any, seed: Any) -> None:
    """Refuse words that contradict each other, or are none."""
    lookup(SOURCES, source, "source")
    if seed is not None and (not isinstance(seed, Integral) or seed < 0):
        raise ValueError(f"seed is a whole number of at least 0, not {seed!r}.")
    if batch is not None and np.ndim(batch) > 0:
        raise ValueError(f"Cells are generated of one batch, not of {batch!r}.")
    if cells is not None and source != "cells":
        raise ValueError(f"cells= are generated around with source='cells', not {source!r}.")
    if latent is not None and (cells is not None or source != "prior"):
        raise ValueError("latent= says where cells are, in the place of source and cells.")


def _one_each(name: str, size: Any, n_cells: int) -> np.ndarray:
    """Return the totals of cells, ``(n_cells,)``, of one number or one for each."""
    if np.ndim(size) > 0 and np.shape(size) != (n_cells,):
        raise ValueError(
            f"library_size{_of(name)} has the shape {np.shape(size)}, and {n_cells} cells are to be "
            f"generated: one number, or ({n_cells},)."
        )
    return np.full(n_cells, size, dtype=np.float32)


def _of(name: str) -> str:
    """Name a modality, if there are several."""
    return "" if name == COUNTS else f" of {name!r}"


def _numpy(values: Tensor) -> np.ndarray:
    return values.cpu().numpy().astype(np.float64)


def no_cells(features: Any, layer: str | None) -> AnnData:
    """Return an object without cells, with its features and a layer, if one is to have the counts."""
    counts = sparse.csr_matrix((0, len(features)), dtype=np.float32)
    layers = {} if layer is None else {layer: counts.copy()}
    return AnnData(counts, var=pd.DataFrame(index=pd.Index(features)), layers=layers)


def registered_columns(setup_args: dict[str, Any]) -> list[str]:
    """Return the columns of ``obs`` that a model reads."""
    words = ("batch_key", "labels_key", "size_factor_key")
    one = [setup_args.get(word) for word in words]
    several = ("categorical_covariate_keys", "continuous_covariate_keys")
    return [key for key in one if key is not None] + [
        key for word in several for key in setup_args[word] or []
    ]
