"""Estimation of a module's effects, from sums of counts over groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS

from betavi import _blocks
from betavi.data import COUNTS
from betavi.data.conditions import CONTEXT, DOSE, PERTURBATION, REPLICATE
from betavi.diagnostics.effects import fit_effects, inflation, sum_groups
from betavi.nn.effects import BASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from betavi.data import CellManager
    from betavi.diagnostics.effects import EffectPosterior, GroupSums
    from betavi.module.effects import EffectVAE

KEYS = (PERTURBATION, DOSE, CONTEXT, REGISTRY_KEYS.BATCH_KEY, REPLICATE)
"""Fields whose combinations are groups: cells of one condition, context, batch and replicate."""


class Groups(NamedTuple):
    """Groups of cells.

    ``codes`` are those of the groups' fields, ``(n_groups, 5)``, in the order of ``KEYS``; ``member`` is
    the group of each cell, ``(n_cells,)``.
    """

    codes: np.ndarray
    member: np.ndarray


def groups_of(manager: CellManager, cells: np.ndarray) -> Groups:
    """Return the groups of some cells."""
    columns = [
        np.asarray(manager.get_from_registry(key)).ravel()[cells]
        if key in manager.data_registry
        else np.zeros(len(cells))
        for key in KEYS
    ]
    codes, member = np.unique(np.column_stack(columns).astype(np.int64), axis=0, return_inverse=True)
    return Groups(codes, member.ravel())


def sums_of(manager: CellManager, cells: np.ndarray, groups: Groups) -> GroupSums:
    """Return the sums of the cells' counts over their groups. Reads the counts once."""
    rows = manager.rows(COUNTS)
    assert rows is not None

    def blocks() -> Iterator[tuple[sparse.csr_array, np.ndarray]]:
        for start in range(0, len(cells), _blocks.READ_ROWS):
            some = slice(start, start + _blocks.READ_ROWS)
            yield sparse.csr_array(rows[cells[some]]), groups.member[some]

    return sum_groups(blocks(), len(groups.codes), rows.shape[1])


def base_design(codes: np.ndarray, n_contexts: int, n_batches: int) -> np.ndarray:
    """Return the base levels of groups: a constant, other contexts, other batches."""
    contexts, batches = np.eye(n_contexts)[codes[:, 2]], np.eye(n_batches)[codes[:, 3]]
    return np.column_stack([np.ones(len(codes)), contexts[:, 1:], batches[:, 1:]])


def design_of(module: EffectVAE, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the design of groups with base levels first, and the kind of each column."""
    condition, dose, context = torch.as_tensor(codes[:, :3]).T
    design = module.effect_design.cpu()
    effects = design(condition, dose, context).double().numpy()
    base = base_design(codes, design.n_contexts, module.sizes.n_batch)
    kinds = np.concatenate([np.full(base.shape[1], BASE), design.kinds.numpy()])
    return np.column_stack([base, effects]), kinds


def estimate_effects(
    module: EffectVAE,
    manager: CellManager,
    cells: np.ndarray,
    state: np.ndarray | None = None,
    groups: Groups | None = None,
) -> EffectPosterior:
    """Estimate the effects from some cells, and store them in the module.

    ``state`` is the sum of the counts that the cells' states predict without effects, for each group,
    ``(n_groups, n_genes)``. Without it, all cells have the same state.
    """
    groups = groups_of(manager, cells) if groups is None else groups
    sums = sums_of(manager, cells, groups)
    design, kinds = design_of(module, groups.codes)
    offset = None if state is None else np.log(state)
    found = fit_effects(sums.counts, design, kinds, inflation(sums), offset)
    effects = torch.as_tensor(found.mean[kinds != BASE], dtype=torch.float32)
    module.head.effects.copy_(effects)
    return found
