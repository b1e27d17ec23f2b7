"""The registered covariates of cells, by the names a user gave them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scvi import REGISTRY_KEYS

if TYPE_CHECKING:
    from scvi.data import AnnDataManager

ByName = dict[str, np.ndarray]


class Covariates(NamedTuple):
    """Codes or values of each cell, ``(n_cells,)``, by name; decoders do not read labels."""

    categorical: ByName
    continuous: ByName
    labels: ByName

    def of(self, cells: np.ndarray) -> Covariates:
        """Return those of some cells."""
        parts = ({name: values[cells] for name, values in part.items()} for part in self)
        return Covariates(*parts)

    @property
    def codes(self) -> np.ndarray:
        """Codes of all categorical covariates, ``(n_cells, n_covariates)``."""
        return np.column_stack([*self.categorical.values()])

    @property
    def numbers(self) -> np.ndarray | None:
        """Values of all continuous covariates, ``(n_cells, n_covariates)``, if there are any."""
        return np.column_stack([*self.continuous.values()]) if self.continuous else None


def batch_codes(manager: AnnDataManager, batches: Any) -> list[int | None]:
    """Return the codes of batches to decode in: one, several, or None for each cell's own."""
    if batches is None:
        return [None]
    is_one = isinstance(batches, str) or np.ndim(batches) == 0
    several = [batches] if is_one else list(batches)
    if not several:
        raise ValueError("transform_batch names no batch: leave it out to decode in its own.")
    known = list(manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY).categorical_mapping)
    if manager.registry["setup_args"].get("batch_key") is None and several != known:
        raise ValueError(
            f"There is no batch {several[0]!r}, as the model knows of none: setup_anndata(batch_key=...) "
            "or setup_mudata(batch_key=...) says what they are."
        )
    if unknown := [batch for batch in several if batch not in known]:
        there = ", ".join(map(repr, known))
        raise ValueError(f"There is no batch {unknown[0]!r}; there is {there}.")
    return [known.index(batch) for batch in several]


def covariates_of(manager: AnnDataManager, setup_args: dict[str, Any]) -> Covariates:
    """Read the covariates that ``setup_anndata`` registered."""

    def column(key: str) -> np.ndarray:
        return np.asarray(manager.get_from_registry(key)).ravel()

    def joint(key: str, word: str) -> ByName:
        if not (names := setup_args.get(word)):
            return {}
        values = np.asarray(manager.get_from_registry(key))
        return dict(zip(names, values.T, strict=True))

    batch = {setup_args.get("batch_key") or "batch": column(REGISTRY_KEYS.BATCH_KEY)}
    label = setup_args.get("labels_key")
    return Covariates(
        batch | joint(REGISTRY_KEYS.CAT_COVS_KEY, "categorical_covariate_keys"),
        joint(REGISTRY_KEYS.CONT_COVS_KEY, "continuous_covariate_keys"),
        {label: column(REGISTRY_KEYS.LABELS_KEY)} if label else {},
    )
