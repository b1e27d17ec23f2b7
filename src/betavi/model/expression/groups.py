"""Groups of cells for a comparison, and their checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from betavi._tables import close_matches, lookup
from betavi.model.setup.messages import name_some, warn
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Sequence

MODES: dict[str, str] = {
    "vanilla": "which group is the higher",
    "change": "whether they differ by more than delta",
}
"""Questions of differential tests, by the user's word."""


class Groups(NamedTuple):
    """The groups to compare, in the words of ``differential_expression``."""

    groupby: str | None
    group1: Sequence[str] | str | None
    group2: str | None
    idx1: Any
    idx2: Any

    def numbered(self, names: pd.Index) -> Groups:
        """Return the same, with positions in place of names of cells."""
        given: dict[str, Any] = {
            word: cells_named(names, cells, word)
            for word, cells in (("idx1", self.idx1), ("idx2", self.idx2))
            if cells is not None and not isinstance(cells, str)
        }
        return self._replace(**given)

    def checked(self, obs: pd.DataFrame, mode: str) -> Groups:
        """Check the groups and the test before scvi-tools adds a column to the object.

        Returns the same, with all groups that have cells in ``group1`` if it is None.
        """
        lookup(MODES, mode, "mode")
        if self.idx1 is not None:
            self._check_cells(obs)
            return self
        if self.idx2 is not None:
            raise ValueError("idx2= are the cells that others are compared with: which, idx1=?")
        if self.groupby is None:
            raise ValueError("Say what to compare: groupby=, or idx1=.")
        key = self.groupby
        if key not in obs:
            raise KeyError(f"There is no obs[{key!r}]. {close_matches(key, obs.columns)}")
        categories = obs[key].astype("category").cat.remove_unused_categories().cat.categories
        known = categories.tolist()
        others = [group for group in known if group != self.group2]
        found = self._replace(group1=others if self.group1 is None else _listed(self.group1))
        for group in found.named:
            if group not in known:
                raise KeyError(f"obs[{key!r}] has no group {group!r}; it has {name_some(known)}.")
        if len(known) == 1:
            raise ValueError(f"obs[{key!r}] has the group {known[0]!r} only: there are no others.")
        if self.group2 in _listed(found.group1):
            raise ValueError(
                f"group1 and group2 both have {self.group2!r}: nothing is to be compared."
            )
        return found

    @property
    def named(self) -> list[Any]:
        """The groups of both sides; empty if cells are given."""
        sides = (self.group1, self.group2)
        return [group for side in sides if side is not None for group in _listed(side)]

    def _check_cells(self, obs: pd.DataFrame) -> None:
        """Refuse unknown cells, and sides that are empty or the same."""
        for word, cells in (("idx1", self.idx1), ("idx2", self.idx2)):
            _check_query(obs, cells, word)
        ((one, two),) = self.sides(obs)
        if not two.any():
            raise ValueError("idx1 names all cells: there are no others to compare them with.")
        if (one == two).all():
            raise ValueError("idx1 and idx2 name the same cells: nothing is to be compared.")

    def sides(self, obs: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return masks of both sides of each comparison, each ``(n_cells,)``."""
        if self.idx1 is not None:
            one = _mask(obs, self.idx1)
            return [(one, ~one if self.idx2 is None else _mask(obs, self.idx2))]
        column = obs[self.groupby]
        ones = [(column == group).to_numpy() for group in _listed(self.group1)]
        if self.group2 is None:
            return [(one, ~one) for one in ones]
        return [(one, (column == self.group2).to_numpy()) for one in ones]

    def check_measured(self, obs: pd.DataFrame, has: np.ndarray, name: str) -> None:
        """Raise a ValueError for a group without any cell that has a modality."""
        for group in self.named if self.idx1 is None else []:
            if not has[(obs[self.groupby] == group).to_numpy()].any():
                raise ValueError(f"No cell of the group {group!r} has {name!r}.")

    def warn_of_batches(self, obs: pd.DataFrame, batch: np.ndarray) -> None:
        """Warn if groups share no batch: correction would then remove their difference."""
        if any(not np.intersect1d(batch[one], batch[two]).size for one, two in self.sides(obs)):
            warn(
                "No batch has cells of both groups, and batch_correction=True takes what differs "
                "between batches for no difference. If that is what you study, such as a "
                "condition, train without it in batch_key."
            )


def _listed(groups: Any) -> list[Any]:
    return list(np.atleast_1d(np.asarray(groups, dtype=object)))


def _check_query(obs: pd.DataFrame, cells: Any, word: str) -> None:
    """Refuse a query of ``obs`` that is invalid, or selects no cell."""
    if not isinstance(cells, str):
        return
    example = f"{word}=\"cell_type == 'B' and condition == 'treated'\""
    try:
        found = obs.query(cells)
    except Exception as error:
        raise ValueError(
            f"{word}={cells!r} is no query of obs ({error}). One is {example}; obs has the columns "
            f"{name_some(list(obs.columns))}."
        ) from error
    if not isinstance(found, pd.DataFrame) or found.empty:
        raise ValueError(f"{word}={cells!r} selects no cell. A query is such as {example}.")


def _mask(obs: pd.DataFrame, cells: Any) -> np.ndarray:
    """Return a mask of the cells given by a query or by positions, ``(n_cells,)``."""
    if isinstance(cells, str):
        return np.asarray(obs.index.isin(obs.query(cells).index))
    mask = np.zeros(len(obs), dtype=bool)
    mask[cells] = True
    return mask
