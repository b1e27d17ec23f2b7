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
from betavi.diagnostics.effects import (
    EffectPosterior,
    ScaleMixture,
    fit_effects,
    inflation,
    sum_groups,
)
from betavi.nn.effects import BASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from betavi.data import CellManager
    from betavi.diagnostics.effects import GroupSums
    from betavi.module.effects import EffectVAE

KEYS = (PERTURBATION, DOSE, CONTEXT, REGISTRY_KEYS.BATCH_KEY, REPLICATE)
"""Fields whose combinations are groups: cells of one condition, context, batch and replicate."""


POSTERIOR = ("mean", "rows", "weights", "precision", "shift", "noise")
ESTIMATE = ("kinds", "profile", "bases", "inflation")
STORED = (*POSTERIOR, "scale_weights", "scales", *ESTIMATE)
"""Names of the arrays that a module stores of its effects."""


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


class EffectEstimate(NamedTuple):
    """Estimated effects of a module, and what predictions need besides.

    Parameters
    ----------
    posterior
        Posterior of base levels and effects.
    kinds
        Kind of each column of the design, ``(n_columns,)``.
    profile
        Log share of each gene in all counts, ``(n_genes,)``, to which base levels are added.
    bases
        Mean base levels of the cells of each context, ``(n_contexts, n_base)``.
    inflation
        Variance of counts over their mean, ``(n_genes,)``.
    """

    posterior: EffectPosterior
    kinds: np.ndarray
    profile: np.ndarray
    bases: np.ndarray
    inflation: np.ndarray

    @property
    def n_base(self) -> int:
        """Number of base levels, the first columns."""
        return self.bases.shape[1]


def estimate_effects(module: EffectVAE, codes: np.ndarray, sums: GroupSums) -> EffectEstimate:
    """Return the effects that are estimated from groups of cells with these codes and sums."""
    design, kinds = design_of(module, codes)
    spread = inflation(sums)
    posterior = fit_effects(sums.counts, design, kinds, spread)
    shares = (sums.counts.sum(axis=0) + 0.5) / (sums.counts.sum() + 0.5 * sums.counts.shape[1])
    base, contexts = design[:, kinds == BASE], codes[:, 2]
    n_contexts = module.effect_design.n_contexts
    # contexts without cells have the mean of all cells
    member = np.eye(n_contexts)[contexts].T * sums.n_cells
    member[member.sum(axis=1) == 0] = sums.n_cells
    bases = member @ base / member.sum(axis=1, keepdims=True)
    return EffectEstimate(posterior, kinds, np.log(shares), bases, spread)


def start_effects(module: EffectVAE, manager: CellManager, cells: np.ndarray) -> None:
    """Estimate the effects from some cells, and store them in the module."""
    groups = groups_of(manager, cells)
    found = estimate_effects(module, groups.codes, sums_of(manager, cells, groups))
    is_effect = found.kinds != BASE
    module.head.effects.copy_(torch.as_tensor(found.posterior.mean[is_effect]))
    arrays = found.posterior.prior._asdict() | found.posterior._asdict() | found._asdict()
    module.effect_statistics.store(
        {name: torch.as_tensor(arrays[name]) for name in STORED}
    )


def stored_estimate(module: EffectVAE) -> EffectEstimate:
    """Return the stored effects. Raise a KeyError if there are none."""
    arrays = {name: module.effect_statistics.get(name).cpu().numpy() for name in STORED}
    kinds = arrays["kinds"]
    estimated = kinds[arrays["rows"].any(axis=0)]
    prior = ScaleMixture(arrays["scale_weights"], estimated[estimated != BASE], arrays["scales"])
    posterior = EffectPosterior(*(arrays[name] for name in POSTERIOR), prior)
    return EffectEstimate(posterior, *(arrays[name] for name in ESTIMATE))
