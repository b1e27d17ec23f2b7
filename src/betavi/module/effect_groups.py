"""Groups of cells of one condition, and the sums of their counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scvi import REGISTRY_KEYS

from betavi import _blocks
from betavi.data import COUNTS
from betavi.data.conditions import CONTEXT, DOSE, PERTURBATION, REPLICATE, Conditions
from betavi.diagnostics.effects import sum_groups

if TYPE_CHECKING:
    from collections.abc import Iterator

    from betavi.data import CellManager
    from betavi.diagnostics.effects import GroupSums

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
    """Return the groups of some cells.

    Cells of one condition are one group, even if it has several names, such as ``"A+B"`` and ``"B+A"``.
    """
    columns = [
        np.asarray(manager.get_from_registry(key)).ravel()[cells]
        if key in manager.data_registry
        else np.zeros(len(cells))
        for key in KEYS
    ]
    fields = np.column_stack(columns).astype(np.int64)
    fields[:, :2] = one_code_each(fields[:, :2], Conditions.of_registry(manager.registry))
    codes, member = np.unique(fields, axis=0, return_inverse=True)
    return Groups(codes, member.ravel())


def one_code_each(codes: np.ndarray, conditions: Conditions) -> np.ndarray:
    """Return codes of conditions and doses that are equal for equal conditions, ``(n_cells, 2)``.

    Else, two names or two doses of the controls would be two replicates.
    """
    different, place = np.unique(codes, axis=0, return_inverse=True)
    first: dict[object, np.ndarray] = {}
    merged = [first.setdefault(conditions.key_of(code), code) for code in different]
    return np.stack(merged)[place.ravel()]


def sums_of(manager: CellManager, cells: np.ndarray, groups: Groups) -> GroupSums:
    """Return the sums of the cells' counts over their groups. Reads the counts once."""
    rows = manager.rows(COUNTS)
    assert rows is not None

    def blocks() -> Iterator[tuple[sparse.csr_array, np.ndarray]]:
        for start in range(0, len(cells), _blocks.READ_ROWS):
            some = slice(start, start + _blocks.READ_ROWS)
            yield sparse.csr_array(rows[cells[some]]), groups.member[some]

    return sum_groups(blocks(), len(groups.codes), rows.shape[1])
