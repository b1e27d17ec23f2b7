"""Predictions of conditions that plots read, and places of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from betavi._tables import close_matches
from betavi.pl import _style

if TYPE_CHECKING:
    from anndata import AnnData

LAYERS = ("lfc", "lfc_lower", "lfc_upper")
"""Layers of a prediction: log2 fold changes and the ends of their intervals."""


def check_prediction(name: str, value: Any) -> None:
    """Raise a TypeError unless a value is a result of ``predict``."""
    call = "model.predict()"
    _style.check_result(name, value, call, "layers")
    if missing := [layer for layer in LAYERS if layer not in value.layers]:
        raise TypeError(
            f"`{name}` has no layer {missing[0]!r}. Pass the result of {call} without `cells`"
        )


def row_of(predicted: AnnData, condition: str | None, name: str) -> str:
    """Return the name of the row to draw."""
    if condition is None:
        if predicted.n_obs > 1:
            raise ValueError(
                f"`{name}` has {predicted.n_obs} rows. Choose one with `condition`. "
                f"{close_matches('', predicted.obs_names)}"
            )
        return str(predicted.obs_names[0])
    if condition not in predicted.obs_names:
        raise KeyError(
            f"`{name}` has no row {condition!r}. {close_matches(condition, predicted.obs_names)}"
        )
    return condition


def apart(places: np.ndarray, gap: float) -> np.ndarray:
    """Return places that are at least a gap apart, close to the given places."""
    order = np.argsort(places)
    moved = places[order].astype(float)
    for _ in range(50):
        lacking = np.maximum(gap - np.diff(moved), 0) / 2
        if not lacking.any():
            break
        moved[:-1] -= lacking
        moved[1:] += lacking
    found = np.empty_like(moved)
    found[order] = moved
    return found
