"""Registered covariates of cells, by the user's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scvi import REGISTRY_KEYS

if TYPE_CHECKING:
    from scvi.data import AnnDataManager

ArrayByName = dict[str, np.ndarray]


class Covariates(NamedTuple):
    """Codes or values of each cell by covariate, ``(n_cells,)``. Decoders do not read ``labels``."""

    categorical: ArrayByName
    continuous: ArrayByName
    labels: ArrayByName

    def of(self, cells: np.ndarray) -> Covariates:
        """Return the covariates of some cells."""
        parts = ({name: values[cells] for name, values in part.items()} for part in self)
        return Covariates(*parts)

    @property
    def codes(self) -> np.ndarray:
        """Codes of all categorical covariates, ``(n_cells, n_covariates)``."""
        return np.column_stack([*self.categorical.values()])

    @property
    def numbers(self) -> np.ndarray | None:
        """Values of all continuous covariates, ``(n_cells, n_covariates)``; None without any."""
        return np.column_stack([*self.continuous.values()]) if self.continuous else None


def batch_codes(manager: AnnDataManager, batches: Any) -> list[int | None]:
    """Return the codes of the batches to decode in; ``[None]`` means each cell's own batch."""
    if batches is None:
        return [None]
    is_one = isinstance(batches, str) or np.ndim(batches) == 0
    several = [batches] if is_one else np.ravel(np.asarray(batches, dtype=object)).tolist()
    if not several:
        raise ValueError(
            "`transform_batch` names no batch. Name at least one, or pass None to decode each cell in "
            "its own batch."
        )
    known = list(manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY).categorical_mapping)
    if manager.registry["setup_args"].get("batch_key") is None and several != known:
        raise ValueError(
            f"The model has no batch {several[0]!r}, because it was set up without batches. Pass "
            "`batch_key` to setup_anndata or setup_mudata, and train a new model."
        )
    if unknown := [batch for batch in several if batch not in known]:
        choices = ", ".join(map(repr, known))
        raise ValueError(f"The model has no batch {unknown[0]!r}. It has the batches {choices}.")
    return [known.index(batch) for batch in several]


def covariates_of(manager: AnnDataManager, setup_args: dict[str, Any]) -> Covariates:
    """Return the covariates that were registered in the setup."""

    def column(key: str) -> np.ndarray:
        return np.asarray(manager.get_from_registry(key)).ravel()

    def columns(key: str, argument: str) -> ArrayByName:
        if not (names := setup_args.get(argument)):
            return {}
        values = np.asarray(manager.get_from_registry(key))
        return dict(zip(names, values.T, strict=True))

    batch = {setup_args.get("batch_key") or "batch": column(REGISTRY_KEYS.BATCH_KEY)}
    label = setup_args.get("labels_key")
    return Covariates(
        batch | columns(REGISTRY_KEYS.CAT_COVS_KEY, "categorical_covariate_keys"),
        columns(REGISTRY_KEYS.CONT_COVS_KEY, "continuous_covariate_keys"),
        {label: column(REGISTRY_KEYS.LABELS_KEY)} if label else {},
    )
