"""Where cells are in the latent space, and how densely."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scvi.utils import track

from betavi.diagnostics import fit_density
from betavi.model.core.state import TrainedMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scvi._types import AnnOrMuData

    from betavi.diagnostics import LatentDensity

MOST_CELLS = 20_000
"""Cells that a density is fitted to; of more, these are drawn."""

FEWEST_DRAWS = 5000
"""Draws of posteriors that it is fitted to, several of each cell if there are few cells."""

CELLS_AT_ONCE = 512


class Posteriors(NamedTuple):
    """Of some cells, before what the decoder reads is made of it.

    ``mean`` and ``variance`` are ``(n_cells, n_latent)``, ``draws`` ``(n_draws, n_cells, n_latent)``.
    """

    mean: np.ndarray
    variance: np.ndarray
    draws: np.ndarray


def in_turn(loader: Any, description: str, show_progress: bool) -> Any:
    """Return minibatches with a bar, which is not to change what is drawn: a loader draws when asked."""
    return track(iter(loader), description, total=len(loader), disable=not show_progress)


class PositionsMixin(TrainedMixin):
    """The aggregate posterior."""

    def latent_density(self, show_progress: bool = True) -> LatentDensity:
        """Return the density of cells in the latent space, fitted to draws of their posteriors.

        A mixture of normal distributions, of as many as explain best the draws of cells that are left
        out. It is fitted once, and again after training.

        Parameters
        ----------
        show_progress
            Show a bar while cells are encoded.

        Returns
        -------
        With ``log_prob(positions)`` in nats, ``(n,)``, of positions ``(n, n_latent)``, ``slope`` and
        ``sample``. Of a logistic normal z it is that of the variable before the softmax.

        Raises
        ------
        ValueError
            If the model has no object with cells, or the β asked for was not trained.

        References
        ----------
        Hoffman & Johnson (2016), ELBO surgery: yet another way to carve up the variational evidence
        lower bound.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> density = model.latent_density(show_progress=False)
        >>> density.log_prob(model.get_latent_representation()).shape
        (200,)
        """
        self._check_if_trained(warn=False)
        adata = self._validate_anndata(None)
        density: LatentDensity = self._once(
            "density", self._state(adata.n_obs), lambda: self._fitted_density(adata, show_progress)
        )
        return density

    def _fitted_density(self, adata: AnnOrMuData, show_progress: bool) -> LatentDensity:
        cells = np.random.default_rng(0).permutation(self._cells_of_density(adata))[:MOST_CELLS]
        n_draws = max(1, -(-FEWEST_DRAWS // max(1, len(cells))))
        draws = self._posteriors(adata, np.sort(cells), n_draws, show_progress).draws
        of_cells = np.tile(np.arange(len(cells)), n_draws)
        return fit_density(draws.reshape(-1, draws.shape[-1]), of_cells)

    def _once(self, name: str, of: Any, make: Callable[[], Any]) -> Any:
        """Return what was made of the same thing before, or make it."""
        kept: dict[str, tuple[Any, Any]] = self.__dict__.setdefault("_kept_of_map", {})
        if name not in kept or kept[name][0] != of:
            kept[name] = of, make()
        return kept[name][1]

    def _cells_of_density(self, adata: AnnOrMuData) -> np.ndarray:
        """Return the cells that training has seen: the others judge what is made of these."""
        seen = getattr(self, "train_indices", None)
        if seen is None or not len(seen) or not self._was_split(adata):
            return np.arange(adata.n_obs)
        return np.asarray(seen)

    def _state(self, n_cells: int) -> str:
        """Return a digest of the weights, the β that they are asked at, and the object."""
        digest = hashlib.sha256(repr((self.module.dial.beta, n_cells, id(self.adata))).encode())
        for tensor in self.module.state_dict().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def _posteriors(
        self,
        adata: AnnOrMuData,
        cells: Sequence[int] | np.ndarray | None,
        n_draws: int = 1,
        show_progress: bool = False,
    ) -> Posteriors:
        """Encode cells. The draws have a seed of their own."""
        parts: list[tuple[torch.Tensor, ...]] = []
        loader = self._make_data_loader(adata, cells, batch_size=CELLS_AT_ONCE)
        with self._drawing(0):
            for tensors in in_turn(loader, "Encoding", show_progress):
                q = self._inferred(tensors)["qz"]
                parts.append((q.mean, q.variance, q.sample((n_draws,))))
        means, variances, draws = zip(*parts, strict=True)
        joined = torch.cat(means), torch.cat(variances), torch.cat(draws, dim=1)
        return Posteriors(*(part.cpu().numpy().astype(np.float64) for part in joined))

    def _inferred(self, tensors: dict[str, Any]) -> dict[str, Any]:
        inferred: dict[str, Any] = self.module.inference(
            **self.module._get_inference_input(tensors)
        )
        return inferred

    @contextmanager
    def _drawing(self, seed: int | None) -> Iterator[None]:
        """Draw in evaluation mode, from a seed if there is one, and leave torch's generators be."""
        self.module.eval()
        with self._own_draws(seed):
            yield

    def _decoder_reads(self, positions: np.ndarray) -> torch.Tensor:
        """Return z of positions, ``(..., n_latent)``, on the device."""
        u = torch.as_tensor(positions, dtype=torch.float32, device=self.device)
        z: torch.Tensor = self.module.latent.transform(u)
        return z
