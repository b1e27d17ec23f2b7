"""Section on cells: outlier scores, and the cells that are outlying."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi import pl
from betavi.diagnostics.trust import judge_cells, outlying_cells
from betavi.diagnostics.trust.cells import FDR, LEVEL
from betavi.model.report.section import Section, SectionRule, Table, picture_of

if TYPE_CHECKING:
    import pandas as pd

    from betavi.model.report.results import Results

MOST_CELLS, N_SHOWN, MOST_LINES = 5000, 25, 6
"""Largest number of scored cells, of listed cells, and of lines in the picture. Not tuned."""


def make(results: Results) -> Section:
    """Score cells, and list the outlying ones."""
    model = results.model
    adata = model.adata if results.cells is None else results.cells
    chosen = results.some_of(np.arange(adata.n_obs), MOST_CELLS)
    table = model.support(results.cells, indices=chosen, **results.quiet)
    p_values = table["p_value"].to_numpy()
    groups = _groups(results, adata.obs.iloc[chosen])
    findings = judge_cells(p_values, groups)
    is_outlying = outlying_cells(p_values)
    table = table.join(adata.obs.iloc[chosen][_columns(results, adata.obs)]).rename_axis("cell")
    low = int((p_values < LEVEL).sum())
    who = "New cells" if results.cells is not None else "Cells"
    sample = f" (a random sample of {adata.n_obs})" if len(chosen) < adata.n_obs else ""
    sentence = (
        f"{who}: {is_outlying.sum()} of {len(table)}{sample} are outlying at a false discovery rate of "
        f"{FDR:.0%}. {low} p-values are below {LEVEL} ({low / len(table):.1%}, expected {LEVEL:.0%})."
    )
    ranked = table.assign(is_outlying=is_outlying).sort_values("p_value", kind="stable")
    n_shown = min(max(int(is_outlying.sum()), 5), N_SHOWN)
    caption = f"Cells by p-value, the most outlying first. The page shows {n_shown}"
    listed = Table(caption, ranked, ranked.iloc[:n_shown])
    lines = _lines(groups, len(table))
    picture = picture_of(pl.support(table, lines), f"Distribution of p-values. {sentence}")
    answer = f"{len(table) - is_outlying.sum()} of {len(table)} cells{sample} are like the training cells."
    if is_outlying.any():
        names = ", ".join(map(str, ranked.index[: min(int(is_outlying.sum()), 5)]))
        answer += f" {is_outlying.sum()} cell(s) are outlying, for example {names}."
    verdict = "as expected" if not findings else "many outlying cells"
    lists = {"Outlying cells": ranked.index[: int(is_outlying.sum())].astype(str).tolist()}
    return Section(verdict, sentence, findings, [listed], [picture], lists, answer)


def _columns(results: Results, obs: pd.DataFrame) -> list[str]:
    keys = [results.setup_args.get("batch_key"), results.labels_key]
    return [key for key in dict.fromkeys(keys) if key is not None and key in obs]


def _groups(results: Results, obs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return masks of the cells of each batch and label, by name. A single group has none."""
    found: dict[str, np.ndarray] = {}
    for key in _columns(results, obs):
        codes = obs[key].astype(str)
        if len(codes.unique()) > 1:
            found |= {
                f"{key} {name!r}": (codes == name).to_numpy() for name in sorted(codes.unique())
            }
    return found


def _lines(groups: dict[str, np.ndarray], n_cells: int) -> list[str] | None:
    """Return the group of each cell in the picture, for few groups that do not overlap."""
    masks = list(groups.values())
    if not 1 < len(masks) <= MOST_LINES or sum(mask.sum() for mask in masks) != n_cells:
        return None
    names = np.empty(n_cells, dtype=object)
    for name, mask in groups.items():
        names[mask] = name
    return names.tolist()


RULE = SectionRule(
    heading="Cells: which ones does the model describe?",
    make=make,
    call="model.support()",
    means="A cell is outlying if few cells are near it in the latent space, or if its counts are less "
    "likely than counts drawn from the model. The p-value compares it with held-out cells of the same "
    "depth. About 1 in 20 ordinary cells has a p-value below 0.05.",
    does_not_mean="An outlying cell is not always a bad cell: it may be of a rare or a new type. A cell "
    "that is not outlying can still be a doublet of two common types.",
    needs="support",
)
