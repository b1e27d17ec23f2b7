"""Scores of cells: latent density, and reconstruction loss compared with drawn counts."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from torch import Tensor
from torch.distributions import Distribution

from betavi import _blocks
from betavi.data import present_key
from betavi.diagnostics import CellScores
from betavi.kernels import dense, totals

if TYPE_CHECKING:
    from scvi._types import AnnOrMuData

    from betavi.diagnostics import LatentDensity
    from betavi.model.core.latent_model import LatentModel, Tensors

N_REPLICATES = 8
"""Number of count profiles drawn per cell, for comparison with its counts; not tuned."""

N_WORST = 50
"""Number of features per cell that are scored: those with the lowest likelihood. The noise of all
features would hide the marker genes of a cell type that the model was not trained on."""

SEED = 0


class ScoredCells(NamedTuple):
    """Scores of cells, with the modalities of each cell.

    ``scores``: arrays ``(n_shares, n_cells)``, with a row per share of the molecules. ``pattern``:
    number of the set of modalities of each cell, ``(n_cells,)``. ``is_empty``: True for cells
    without counts, ``(n_cells,)``.
    """

    scores: CellScores
    pattern: np.ndarray
    is_empty: np.ndarray


@torch.inference_mode()
def score_cells(
    model: LatentModel,
    adata: AnnOrMuData,
    cells: np.ndarray,
    density: LatentDensity,
    shares: tuple[float, ...] = (1.0,),
    progress: str | None = None,
) -> ScoredCells:
    """Score cells with all or some of their molecules. A score does not depend on other cells."""
    scores, patterns, depths = [], [], []
    with model.seeded(SEED):
        for tensors in model.minibatches(adata, cells, _blocks.ENCODED_CELLS, progress=progress):
            copies = [_scores(model, _thinned(model, tensors, share), density) for share in shares]
            scores.append(CellScores(*map(np.stack, zip(*copies, strict=True))))
            patterns.append(_pattern(model, tensors))
            depths.append(_depth(model, tensors).cpu().numpy())
    is_of_counts = any(model.likelihood(name).is_of_counts for name in model.modalities)
    is_empty = is_of_counts & (np.concatenate(depths) <= 0)
    return ScoredCells(CellScores.joined(scores), np.concatenate(patterns), is_empty)


def _scores(model: LatentModel, tensors: Tensors, density: LatentDensity) -> CellScores:
    """Return the scores of a minibatch, each ``(n_cells,)``."""
    inferred = model.infer(tensors)
    # the mean of an inferred library size, because a draw would add noise
    inferred["library"] |= {name: size.mean for name, size in inferred["ql"].items()}
    mean = inferred["qz"].mean
    z = model.module.latent.transform(mean)
    px = {
        name: model.decode(z, tensors, name, model.module.log_sizes(tensors, inferred, name))
        for name in model.modalities
    }
    reconstruction_excess = torch.zeros(len(mean), device=model.device)
    n_features = sum(tensors[name].shape[1] for name in px)
    for name, expected in _nats_of_draws(model, px, len(mean), n_features).items():
        excess = _worst_nats(px[name], dense(tensors[name]).to(model.device)) - expected
        if (key := present_key(name)) in tensors:
            excess = excess.where(tensors[key].to(model.device).squeeze(-1).bool(), 0.0)
        reconstruction_excess = reconstruction_excess + excess
    log_depth = _depth(model, tensors).clamp_min(1.0).log()
    others = (part.double().cpu().numpy() for part in (reconstruction_excess, log_depth))
    return CellScores(density.log_prob(mean.cpu().numpy()), *others)


def _nats_of_draws(
    model: LatentModel, px: dict[str, Any], n_cells: int, n_features: int
) -> dict[str, Tensor]:
    """Return the mean loss of the worst features of drawn counts, ``(n_cells,)``, by modality.

    Counts of every cell are drawn with the same random numbers, so that a score depends only on the
    cell.
    """
    source: Any = torch if model.device.type == "cpu" else torch.get_device_module(model.device)
    size = max(1, _blocks.DRAWN_VALUES // (N_REPLICATES * n_features))
    single = {name: _split(part, n_cells, 1) for name, part in px.items()}
    blocks = {name: _split(part, n_cells, size) for name, part in px.items()}
    nats: dict[str, list[Tensor]] = {name: [] for name in px}
    with model.seeded(SEED):
        state = source.get_rng_state()
        for number, start in enumerate(range(0, n_cells, size)):
            drawn: dict[str, list[Tensor]] = {name: [] for name in px}
            for cell in range(start, min(start + size, n_cells)):
                # a seed would also be queued by PyTorch for devices that are not in use yet
                source.set_rng_state(state)
                for name in px:
                    drawn[name].append(single[name][cell].sample((N_REPLICATES,)))
            for name, counts in drawn.items():
                x = torch.cat(counts, dim=1)
                # a normal likelihood of counts draws negative values
                x = x.clamp_min(0) if model.likelihood(name).is_of_counts else x
                nats[name].append(_worst_nats(blocks[name][number], x).mean(dim=0))
    return {name: torch.cat(parts) for name, parts in nats.items()}


def _split(px: Any, n_cells: int, size: int) -> list[Any]:
    """Split a distribution into distributions of blocks of cells."""
    parts_by_name: dict[str, Any] = {}
    for name, value in vars(px).items():
        if isinstance(value, Distribution):
            parts_by_name[name] = _split(value, n_cells, size)
        elif isinstance(value, Tensor) and value.ndim > 1 and len(value) == n_cells:
            parts_by_name[name] = value.split(size)
    blocks = [copy(px) for _ in range(0, n_cells, size)]
    for number, block in enumerate(blocks):
        vars(block).update({name: parts[number] for name, parts in parts_by_name.items()})
        if px.batch_shape:
            n_here = min(size, n_cells - number * size)
            block._batch_shape = torch.Size([n_here, *px.batch_shape[1:]])
    return blocks


def _worst_nats(px: Any, x: Tensor) -> Tensor:
    """Return the loss (nats) of the features with the lowest likelihood, ``(..., n_cells)``."""
    nats = -px.log_prob(x)
    return nats.topk(min(N_WORST, nats.shape[-1]), dim=-1)[0].sum(dim=-1)


def _depth(model: LatentModel, tensors: Tensors) -> Tensor:
    """Return the total of each cell, ``(n_cells,)``.

    Modalities whose likelihood is not of counts are left out, unless there are no others. Images have
    no depth.
    """
    counted = [name for name in model.modalities if model.likelihood(name).is_of_counts]
    if not counted and any(model.likelihood(name).of_images for name in model.modalities):
        return torch.ones(len(tensors[REGISTRY_KEYS.BATCH_KEY]), device=model.device)
    parts = [totals(tensors[name]) for name in counted or model.modalities]
    return torch.cat(parts, dim=1).sum(dim=1)


def _pattern(model: LatentModel, tensors: Tensors) -> np.ndarray:
    """Return a number for the set of modalities that each cell has, ``(n_cells,)``."""
    code = np.zeros(len(tensors[REGISTRY_KEYS.BATCH_KEY]), dtype=int)
    for bit, name in enumerate(model.modalities):
        if (key := present_key(name)) in tensors:
            code += tensors[key].ravel().cpu().numpy().astype(int) << bit
    return code


def _thinned(model: LatentModel, tensors: Tensors, share: float) -> Tensors:
    """Return a minibatch with a random share of its molecules.

    Non-integer values and images are not changed.
    """
    if share == 1:
        return tensors
    thinned = {}
    for name in model.modalities:
        counts = dense(tensors[name]).float()
        if not model.likelihood(name).of_images and bool((counts == counts.round()).all()):
            counts = torch.binomial(counts, torch.full_like(counts, share))
        thinned[name] = counts
    if model.module.options.given_size:
        thinned[REGISTRY_KEYS.SIZE_FACTOR_KEY] = tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY] * share
    return tensors | thinned
