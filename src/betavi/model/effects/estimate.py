"""Training of a model with effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from betavi import _blocks
from betavi.data import COUNTS
from betavi.model.core import training
from betavi.module.effect_fit import estimate_effects, groups_of
from betavi.module.effects import DESIGN

if TYPE_CHECKING:
    from betavi.model.core.latent_model import LatentModel


def train(model: LatentModel, *args: Any, **kwargs: Any) -> None:
    training.train(model, *args, **kwargs)
    update_effects(model)


@torch.inference_mode()
def update_effects(model: LatentModel) -> None:
    """Estimate the effects again, given the states of the training cells."""
    cells, manager = model.seen(model.adata), model.adata_manager
    groups = groups_of(manager, cells)
    estimate_effects(model.module, manager, cells, state_counts(model, cells, groups), groups)


def state_counts(model: LatentModel, cells: np.ndarray, groups: Any) -> np.ndarray:
    n_genes = len(model.features(COUNTS))
    total = torch.zeros(len(groups.codes), n_genes, dtype=torch.float64)
    first = 0
    with model.seeded(0):
        for tensors in model.minibatches(model.adata, cells, _blocks.ENCODED_CELLS):
            inferred = model.infer(tensors)
            n_cells = len(inferred["z"])
            none = torch.zeros(n_cells, len(model.module.head.effects))
            log_size = model.module.log_sizes(tensors, inferred, COUNTS)
            z = model.module.latent.transform(inferred["qz"].mean)
            px = model.decode(z, tensors | {DESIGN: none}, COUNTS, log_size)
            total.index_add_(0, torch.as_tensor(groups.member[first : first + n_cells]), px.mean.double())
            first += n_cells
    return total.numpy()
