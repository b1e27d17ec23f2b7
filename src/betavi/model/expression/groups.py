"""Groups of cells to compare, and their checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from betavi._tables import close_matches, lookup
from betavi.model.setup.check_obs import check_not_repeated
from betavi.model.setup.messages import name_some, warn
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Sequence

MODES: dict[str, str] = {
    "vanilla": "probability that the first group is higher",
    "change": "probability that the groups differ by more than delta",
}
"""Results of differential tests, by ``mode``."""


class Groups(NamedTuple):
    """Groups to compare, as the arguments of ``differential_expression``."""

    groupby: str | None
    group1: Sequence[str] | str | None
    group2: str | None
    idx1: Any
    idx2: Any

    def with_positions(self, names: pd.Index) -> Groups:
        """Return the same groups, with positions in place of cell names."""
        given: dict[str, Any] = {
            word: cells_named(names, cells, word)
            for word, cells in (("idx1", self.idx1), ("idx2", self.idx2))
            if cells is not None and not isinstance(cells, str)
        }
        return self._replace(**given)

    def checked(self, obs: pd.DataFrame, mode: str) -> Groups:
        """Return the groups after a check. ``group1=None`` becomes all groups that have cells."""
        lookup(MODES, mode, "mode")
        if self.idx1 is not None:
            self._check_cells(obs)
            return self
        if self.idx2 is not None:
            raise ValueError(
                "`idx2` was passed without `idx1`. Pass `idx1`, the cells to compare with `idx2`."
            )
        if self.groupby is None:
            raise ValueError("Pass `groupby`, a column of obs, or `idx1`, the cells to compare.")
        key = self.groupby
        if key not in obs:
            raise KeyError(f"obs[{key!r}] does not exist. {close_matches(key, obs.columns)}")
        check_not_repeated(obs, key)
        categories = obs[key].astype("category").cat.remove_unused_categories().cat.categories
        known = categories.tolist()
        others = [group for group in known if group != self.group2]
        found = self._replace(group1=others if self.group1 is None else _as_list(self.group1))
        for group in found.named:
            if group not in known:
                raise KeyError(
                    f"obs[{key!r}] has no group {group!r}. It has the groups {name_some(known)}."
                )
        if len(known) == 1:
            raise ValueError(
                f"obs[{key!r}] has only one group, {known[0]!r}. Choose a column with more groups."
            )
        if self.group2 in _as_list(found.group1):
            raise ValueError(
                f"`group1` and `group2` both contain {self.group2!r}. Choose different groups."
            )
        return found

    @property
    def named(self) -> list[Any]:
        """The groups of both sides. Empty if cells are given."""
        sides = (self.group1, self.group2)
        return [group for side in sides if side is not None for group in _as_list(side)]

    def _check_cells(self, obs: pd.DataFrame) -> None:
        """Raise a ValueError if a query is invalid, a side is empty, or the sides share cells."""
        ((one, two),) = self.sides(obs)
        if not two.any():
            raise ValueError(
                "`idx1` selects all cells, so no cells are left to compare with. Select fewer."
            )
        if (both := one & two).any():
            raise ValueError(
                f"`idx1` and `idx2` both select {both.sum()} cell(s): {name_some(obs.index[both])}. "
                "Choose groups without common cells."
            )

    def sides(self, obs: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return masks of both sides of each comparison, each ``(n_cells,)``."""
        if self.idx1 is not None:
            one = _mask(obs, self.idx1, "idx1")
            return [(one, ~one if self.idx2 is None else _mask(obs, self.idx2, "idx2"))]
        column = obs[self.groupby]
        ones = [(column == group).to_numpy() for group in _as_list(self.group1)]
        if self.group2 is None:
            return [(one, ~one) for one in ones]
        return [(one, (column == self.group2).to_numpy()) for one in ones]

    def check_measured(self, obs: pd.DataFrame, has: np.ndarray, name: str) -> None:
        """Raise a ValueError for a group in which no cell has a modality."""
        for group in self.named if self.idx1 is None else []:
            if not has[(obs[self.groupby] == group).to_numpy()].any():
                raise ValueError(
                    f"The modality {name!r} was not measured in any cell of the group {group!r}. "
                    "Choose other groups."
                )

    def warn_of_batches(self, obs: pd.DataFrame, batch: np.ndarray) -> None:
        """Warn if no batch has cells of both groups: correction would remove their difference."""
        if any(not np.intersect1d(batch[one], batch[two]).size for one, two in self.sides(obs)):
            warn(
                "No batch has cells of both groups. batch_correction=True removes all differences "
                "between batches, and therefore also the difference between these groups. To "
                "study this difference, train a new model without `batch_key`, or with a "
                "`batch_key` in which batches contain cells of both groups."
            )


def _as_list(groups: Any) -> list[Any]:
    return list(np.atleast_1d(np.asarray(groups, dtype=object)))


def _mask(obs: pd.DataFrame, cells: Any, argument: str) -> np.ndarray:
    """Return a mask of the cells that a query or positions select, ``(n_cells,)``."""
    if not isinstance(cells, str):
        mask = np.zeros(len(obs), dtype=bool)
        mask[cells] = True
        return mask
    example = f"{argument}=\"cell_type == 'B' and condition == 'treated'\""
    try:
        found = obs.query(cells)
    except Exception as error:
        raise ValueError(
            f"{argument}={cells!r} is not a valid query of obs ({error}). Example: {example}. The "
            f"columns of obs are {name_some(list(obs.columns))}."
        ) from error
    if not isinstance(found, pd.DataFrame) or found.empty:
        raise ValueError(f"{argument}={cells!r} selects no cell. Change the query, e.g. {example}")
    return np.asarray(obs.index.isin(found.index))
