"""Groups of cells that are compared: whether they are there, and share a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from betavi._tables import close_matches, lookup
from betavi.model.cells import cells_named
from betavi.model.messages import name_some, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

MODES: dict[str, str] = {
    "vanilla": "which group is the higher",
    "change": "whether they differ by more than delta",
}
"""What a differential test asks, by the user's word."""


class Groups(NamedTuple):
    """What is compared, in the words of ``differential_expression``."""

    groupby: str | None
    group1: Sequence[str] | str | None
    group2: str | None
    idx1: Any
    idx2: Any

    def numbered(self, names: pd.Index) -> Groups:
        """Return the same, with positions in the place of names of cells."""
        given: dict[str, Any] = {
            word: cells_named(names, cells, word)
            for word, cells in (("idx1", self.idx1), ("idx2", self.idx2))
            if cells is not None and not isinstance(cells, str)
        }
        return self._replace(**given)

    def check(self, obs: pd.DataFrame, mode: str) -> list[Any]:
        """Refuse groups that are not there, before scvi-tools adds a column to the object.

        Parameters
        ----------
        obs
            Of the cells.
        mode
            The test.

        Returns
        -------
        The groups that are compared; none if cells are given.

        Raises
        ------
        KeyError
            If there is no such column or group.
        ValueError
            If nothing is to be compared, or the test is unknown.
        """
        lookup(MODES, mode, "mode")
        if self.idx1 is not None:
            for word, cells in (("idx1", self.idx1), ("idx2", self.idx2)):
                _check_query(obs, cells, word)
            return []
        if self.idx2 is not None:
            raise ValueError("idx2= are the cells that others are compared with: which, idx1=?")
        if self.groupby is None:
            raise ValueError("Say what to compare: groupby=, or idx1=.")
        key = self.groupby
        if key not in obs:
            raise KeyError(f"There is no obs[{key!r}]. {close_matches(key, obs.columns)}")
        known = obs[key].dropna().unique().tolist()
        chosen = (
            []
            if self.group1 is None
            else list(np.atleast_1d(np.asarray(self.group1, dtype=object)))
        )
        asked = [*(chosen or known), *([] if self.group2 is None else [self.group2])]
        for group in asked:
            if group not in known:
                raise KeyError(f"obs[{key!r}] has no group {group!r}; it has {name_some(known)}.")
        if self.group2 is not None and self.group2 in chosen:
            raise ValueError(
                f"group1 and group2 both have {self.group2!r}: nothing is to be compared."
            )
        if len(known) == 1:
            raise ValueError(f"obs[{key!r}] has the group {known[0]!r} only: there are no others.")
        return asked

    def tell_of_batches(self, obs: pd.DataFrame, batch: np.ndarray) -> None:
        """Warn if groups share no batch, so that correcting for batches takes away what differs.

        Parameters
        ----------
        obs
            Of the cells.
        batch
            Of each cell, ``(n_cells,)``.
        """
        firsts = [self.group1]
        if self.idx1 is None and self.group1 is None:
            firsts = obs[self.groupby].dropna().unique().tolist()
        for first in firsts:
            one = _mask(obs, self.groupby, first, self.idx1)
            is_open = self.idx2 is None and (self.idx1 is not None or self.group2 is None)
            two = ~one if is_open else _mask(obs, self.groupby, self.group2, self.idx2)
            if not np.intersect1d(batch[one], batch[two]).size:
                warn(
                    "No batch has cells of both groups, and batch_correction=True takes what differs "
                    "between batches for no difference. If that is what you study, such as a "
                    "condition, train without it in batch_key."
                )
                return


def _check_query(obs: pd.DataFrame, cells: Any, word: str) -> None:
    """Refuse a query of ``obs`` that pandas cannot answer, or that no cell answers to."""
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


def _mask(obs: pd.DataFrame, groupby: str | None, group: Any, cells: Any) -> np.ndarray:
    """Return which cells are of one side, ``(n_cells,)``."""
    if isinstance(cells, str):
        return np.asarray(obs.index.isin(obs.query(cells).index))
    if cells is None:
        return obs[groupby].isin(np.atleast_1d(np.asarray(group, dtype=object))).to_numpy()
    mask = np.zeros(len(obs), dtype=bool)
    mask[cells] = True
    return mask
