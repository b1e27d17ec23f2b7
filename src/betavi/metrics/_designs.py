"""Noise of pairs, from independent measurements or from matched replicates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from betavi.metrics._noise import Contrasts, Noise, moderate
from betavi.metrics._units import PAIR

if TYPE_CHECKING:
    from betavi.metrics._expected import Scale

HIGHEST_CORRELATION = 0.9

Tests = dict[str, tuple[Contrasts, Noise]]


def unmatched(rows: pd.DataFrame, found: pd.DataFrame, scale: Scale) -> Tests:
    """Return contrasts of pairs, singles and the control, all measured independently."""
    groups = rows.groupby(PAIR, sort=False)["value"]
    means = groups.mean()
    noise = moderate(rows["value"].to_numpy(), groups.ngroup().to_numpy(), means.to_numpy())
    names = [("first", "second"), ("first", None), ("second", None), (None, None)]
    empty = pd.Series("", found.index)
    members = np.column_stack([
        means.index.get_indexer(
            pd.MultiIndex.from_arrays([found["context"], *(found.get(k, empty) for k in name)])
        )
        for name in names
    ])  # fmt: skip
    # a fitted expectation absorbs a part of the singles' noise: its tests are conservative
    gradient = np.column_stack(scale.gradient(*(found[x].to_numpy() for x in ("a", "b", "c"))))
    weights = np.column_stack([np.ones(len(found)), -gradient])
    lower = np.where(found["a"] <= found["b"], members[:, 1], members[:, 2])
    hsa = Contrasts(
        found["hsa_excess"].to_numpy(),
        np.column_stack([members[:, 0], lower]),
        np.tile([1.0, -1.0], (len(found), 1)),
    )
    return {
        "excess": (Contrasts(found["excess"].to_numpy(), members, weights), noise),
        "hsa": (hsa, noise),
    }


def matched(units: pd.DataFrame, found: pd.DataFrame) -> Tests:
    """Return contrasts whose noise is the disagreement of replicates about the excess."""
    pairs = units.groupby(PAIR, sort=False).ngroup().to_numpy()
    one = np.arange(len(found))[:, None]
    tests = {}
    for name, column in (("excess", "excess"), ("hsa", "hsa_excess")):
        noise = moderate(units[column].to_numpy(), pairs, found["observed"].to_numpy())
        inflation = _inflation(units, units[column] / np.sqrt(noise.prior[pairs]))
        contrasts = Contrasts(found[column].to_numpy(), one, np.sqrt(inflation)[:, None])
        tests[name] = contrasts, noise
    return tests


def _inflation(units: pd.DataFrame, excess: pd.Series) -> np.ndarray:
    """Return the factor of the variance of pairs' means because replicates share guides.

    Replicates with a common guide differ less than others. The ratio of their mean squared
    differences, over all pairs, is 1 minus their correlation.
    """
    units = units.assign(value=excess)
    n_units = units.groupby(PAIR, sort=False).size()
    every = _differences(units, PAIR)
    shared = 0 * every
    for label in ("first_label", "second_label"):
        some = _differences(units[units["by_part"]], [*PAIR, label])
        shared = shared.add(some.reindex(every.index, fill_value=0))
    (n_shared, sum_shared), (n_rest, sum_rest) = shared.sum(), (every - shared).sum()
    if min(n_shared, n_rest) == 0 or sum_rest <= 0:
        return np.ones(len(every))
    correlation = np.clip(1 - sum_shared / n_shared * n_rest / sum_rest, 0, HIGHEST_CORRELATION)
    # the mean varies more, and replicates differ less, than with independent replicates
    share = (shared["n"] / every["n"].clip(lower=1)).to_numpy()
    return (1 + correlation * (shared["n"] / n_units).to_numpy()) / (1 - correlation * share)


def _differences(units: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the number of ordered pairs of units, and their sum of half squared differences."""
    groups = units.groupby(keys, sort=False)["value"]
    n = groups.size() * (groups.size() - 1)
    table = pd.DataFrame({"n": n.astype(float), "sum": n * groups.var().fillna(0)})
    return table.groupby(level=PAIR, sort=False).sum()
