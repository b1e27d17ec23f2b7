"""Detection of features that were not measured in every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi.data import Rows, counts_of
from betavi.model.setup.check_mudata import lacks_counts
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from mudata import MuData

MOST_ABSENT = 0.01
"""Largest share of features that a batch may lack for biological reasons. No benchmark tunes it."""


def check_batches(
    mdata: MuData, layers: Mapping[str, str | None], key: str | None, keep_absent: bool = False
) -> None:
    """Refuse features that are absent from a whole batch but frequent in others.

    The model would learn the zeros of unmeasured features as biology. Up to 1 % of a modality's
    features may be absent for biological reasons, for example genes of the Y chromosome. Up to this
    share, or with ``keep_absent``, there is only a warning. ``layers`` has the layer with the
    counts of each registered modality.
    """
    if key is None or lacks_counts(mdata):
        return
    for name, layer in layers.items():
        modality = mdata.mod[name]
        if not modality.n_obs:
            continue
        batch = mdata.obs[key].loc[modality.obs_names].astype(str).to_numpy()
        codes, n_cells = np.unique(batch, return_counts=True)
        n_detected = _detected(Rows(counts_of(modality, layer)), batch, codes)
        share = n_detected.sum(axis=0) / n_cells.sum()
        # by chance, a feature is absent here with a probability below exp(-20)
        absent = (n_detected == 0) & (n_cells[:, None] * share > 20)
        for code, missing in zip(codes, absent, strict=True):
            if missing.all() and not keep_absent:
                raise ValueError(
                    f"No cell of batch {code!r} of mdata.obs[{key!r}] has counts in "
                    f"mdata[{name!r}]. If this modality was not measured in the batch, remove "
                    f"these cells from mdata.mod[{name!r}], because the model would learn their "
                    "zeros as biology. If this modality was measured, pass "
                    "keep_absent_features=True to setup_mudata."
                )
            if missing.any():
                place = f"mdata[{name!r}] have no counts in batch {code!r} of mdata.obs[{key!r}]"
                accepted = keep_absent or missing.mean() <= MOST_ABSENT
                _report_absent(modality.var_names[missing], place, accepted)


def _detected(rows: Rows, batch: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the number of cells with counts, ``(n_batches, n_features)``."""
    n_detected = np.zeros((len(codes), rows.shape[1]))
    labels = np.searchsorted(codes, batch)
    for start, block in rows.blocks():
        batches = labels[start : start + block.shape[0]]
        for code in np.unique(batches):
            detected = (block[batches == code] != 0).sum(axis=0)
            n_detected[code] += np.asarray(detected).ravel()
    return n_detected


def _report_absent(names: pd.Index, place: str, accepted: bool) -> None:
    """Warn of features without counts in a batch, or refuse them unless they are accepted."""
    message = (
        f"{len(names)} feature(s) of {place}, but many counts in other batches: {name_some(names)}."
    )
    if accepted:
        warn(
            f"{message} The model treats the zeros as biology. If the features were "
            "not measured in this batch, drop them."
        )
        return
    error = ValueError(
        f"{message} The features were probably not measured in this batch. Drop the "
        "features, or make the cells of this batch a separate modality. Or, if the "
        "zeros are biology, pass keep_absent_features=True to setup_mudata."
    )
    error.add_note(f"All these features: {names.tolist()}")
    raise error
