"""Features that were not measured in every batch."""

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

FEW = 0.01
"""Share of the features of a modality up to which a batch may lack them for biological reasons."""


def check_batches(
    mdata: MuData, layers: Mapping[str, str | None], key: str | None, keep_absent: bool = False
) -> None:
    """Refuse features that a whole batch lacks though they are frequent in others.

    Zeros of features that were not measured would be learnt as biology. Up to a hundredth of a
    modality's features may be biology, such as genes of the Y chromosome: these, or all with
    ``keep_absent``, only raise a warning. ``layers`` gives the counts of every registered modality.
    """
    if key is None or lacks_counts(mdata):
        return
    for name, layer in layers.items():
        modality = mdata.mod[name]
        if not modality.n_obs:
            continue
        rows = Rows(counts_of(modality, layer))
        batch = mdata.obs[key].loc[modality.obs_names].astype(str).to_numpy()
        codes, labels = np.unique(batch, return_inverse=True)
        seen = np.zeros((len(codes), rows.shape[1]))
        for start, block in rows.blocks():
            some = labels[start : start + block.shape[0]]
            for code in np.unique(some):
                seen[code] += np.asarray((block[some == code] != 0).sum(axis=0)).ravel()
        absent = _absent(seen, np.bincount(labels))
        for code, missing in zip(codes, absent, strict=True):
            if missing.all() and not keep_absent:
                raise ValueError(
                    f"None of the cells of batch {code!r} of mdata.obs[{key!r}] has a count in "
                    f"mdata[{name!r}]. If that was not measured there, take these cells out of it, "
                    f"mdata.mod[{name!r}] = ... of the others: a cell that lacks an assay is not in it, "
                    "and zeros would be learnt as biology. If it was, keep_absent_features=True."
                )
            if missing.any():
                words = (
                    f"{missing.sum()} feature(s) of mdata[{name!r}] have no counts in batch {code!r} of "
                    f"mdata.obs[{key!r}], and many elsewhere: {name_some(modality.var_names[missing])}."
                )
                is_biology = keep_absent or missing.mean() <= FEW
                _warn_or_refuse(words, modality.var_names[missing], is_biology)


def _absent(seen: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return masks of features, by batch, that are absent in a batch and frequent in others."""
    share = seen.sum(axis=0) / sizes.sum()
    # by chance this happens with a probability below exp(-20)
    return (seen == 0) & (sizes[:, None] * share > 20)


def _warn_or_refuse(words: str, names: pd.Index, is_biology: bool) -> None:
    if is_biology:
        warn(f"{words} That is taken for biology; if they were not measured there, drop them.")
        return
    error = ValueError(
        f"{words} They seem not to have been measured there: drop them, or make that batch's cells a "
        "modality of its own. If it is biology, setup_mudata(..., keep_absent_features=True)."
    )
    # the list to drop, below the message
    error.add_note(f"All of them: {names.tolist()}")
    raise error
