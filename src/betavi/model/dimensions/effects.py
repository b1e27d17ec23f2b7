"""Effects of steps along latent dimensions on decoded genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scvi.utils import track

from betavi import _blocks
from betavi.diagnostics import DecodedCells, EffectSums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.diagnostics import GeneEffects
    from betavi.model.core.latent_model import LatentModel, Tensors

QUANTILES = {"-": 0.01, "+": 0.99}
"""Quantile of a dimension among cells at which a step ends, by its sign. 2 % of the cells may be a type."""


class Steps(NamedTuple):
    """Dimensions to move along, and ends of the steps.

    ``median`` is the start, ``(n_latent,)``. ``ends`` has the ends by sign, ``(n_latent,)``.
    """

    dimensions: Sequence[int]
    median: np.ndarray
    ends: dict[str, np.ndarray]


def steps_among(positions: np.ndarray, dimensions: Sequence[int]) -> Steps:
    """Return steps from the median to the quantiles of positions, ``(n_cells, n_latent)``."""
    ends = {sign: np.quantile(positions, share, axis=0) for sign, share in QUANTILES.items()}
    return Steps(dimensions, np.median(positions, axis=0), ends)


@torch.inference_mode()
def effects_of_steps(
    model: LatentModel,
    adata: AnnOrMuData,
    cells: np.ndarray,
    steps: Steps,
    names: Sequence[str],
    show_progress: bool,
) -> dict[tuple[int, str, str], GeneEffects]:
    """Return the effects on genes by dimension, sign and modality, averaged over cells.

    The other dimensions of a cell stay at their posterior mean, and its covariates are its own.
    """
    # an empty list needs no minibatches
    blocks = (
        list(model.minibatches(adata, cells, _blocks.DIAGNOSED_CELLS)) if steps.dimensions else []
    )
    inferred = [model.infer(tensors) for tensors in blocks]
    found: dict[tuple[int, str, str], GeneEffects] = {}
    bar = track(steps.dimensions, "Decoding steps", disable=not show_progress)
    for dimension in bar:
        for name in names:
            n_genes, is_share = len(model.features(name)), _sums_to_one(model, name)
            sums = {sign: EffectSums(n_genes, is_share) for sign in reversed(steps.ends)}
            for tensors, posterior in zip(blocks, inferred, strict=True):
                at = _Decoder(model, tensors, posterior, name, dimension)
                start = at(steps.median[dimension])
                for sign, part in sums.items():
                    part.add(start, at(steps.ends[sign][dimension]))
            found |= {(dimension, sign, name): part.effects() for sign, part in sums.items()}
    return found


class _Decoder(NamedTuple):
    """Decoder of a modality for the cells of a minibatch, as a function of one dimension."""

    model: LatentModel
    tensors: Tensors
    inferred: Tensors
    name: str
    dimension: int

    def __call__(self, value: float) -> DecodedCells:
        u = self.inferred["qz"].mean.clone()
        u[:, self.dimension] = value
        z = self.model.module.latent.transform(u)
        px: Any = self.model.decode(z, self.tensors, self.name, self._log_size())
        read = px.get_normalized("scale"), px.mean
        return DecodedCells(*(part.cpu().double().numpy() for part in read))

    def _log_size(self) -> Tensor:
        """Return the cells' own log sizes, or the typical one if cells may lack the modality."""
        typical = self.model.module.typical(self.name)
        if typical is not None:
            return typical.usual
        return self.model.module.log_sizes(self.tensors, self.inferred, self.name)


def _sums_to_one(model: LatentModel, name: str) -> bool:
    """Return True if the normalised expression of a cell sums to 1."""
    likelihood = model.likelihood(name)
    return likelihood.positive.needs_all and not likelihood.has_background
