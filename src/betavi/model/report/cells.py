"""Section on cells: outlier scores, and the cells that are outlying."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi import pl
from betavi.diagnostics.trust import are_many, judge_cells, outlying_cells
from betavi.diagnostics.trust.cells import FDR, LEVEL
from betavi.model.report.section import Section, SectionRule, Table, picture_of

if TYPE_CHECKING:
    import pandas as pd

    from betavi.model.report.results import Results

MOST_CELLS, N_SHOWN, MOST_LINES = 5000, 25, 6
"""Largest number of scored cells, of listed cells, and of lines in the picture. Not tuned."""

N_NAMED = 3
"""Number of groups that the answer names."""


def make(results: Results) -> Section:
    """Score cells, and list the outlying ones."""
    adata = results.model.adata if results.cells is None else results.cells
    chosen = results.some_of(np.arange(adata.n_obs), MOST_CELLS)
    obs = adata.obs.iloc[chosen]
    table = results.model.support(results.cells, indices=chosen, **results.quiet)
    p_values, groups = table["p_value"].to_numpy(), _groups(results, obs)
    findings = judge_cells(p_values, groups, are_new=results.cells is not None)
    table = table.assign(is_outlying=outlying_cells(p_values)).join(obs[_columns(results, obs)])
    ranked = table.rename_axis("cell").sort_values("p_value", kind="stable")
    outlying = ranked.index[ranked["is_outlying"]].astype(str).tolist()
    n_shown = min(max(len(outlying), 5), N_SHOWN)
    caption = f"Cells by p-value, the most outlying first. The page shows {n_shown}"
    sentence = _sentence(results, table, adata.n_obs)
    lines = _lines(groups, len(table))
    picture = picture_of(pl.support(table, lines), f"Distribution of p-values. {sentence}")
    is_many = any(finding.level == "care" for finding in findings)
    return Section(
        "many outlying cells" if is_many else "as expected",
        sentence,
        findings,
        [Table(caption, ranked, ranked.iloc[:n_shown])],
        [picture],
        {"Outlying cells": outlying},
        _answer(table, outlying, adata.n_obs)
        + _least_described([name for name, mask in groups.items() if are_many(p_values[mask])]),
    )


def _sentence(results: Results, table: pd.DataFrame, n_cells: int) -> str:
    who = "New cells" if results.cells is not None else "Cells"
    n_outlying, low = int(table["is_outlying"].sum()), int((table["p_value"] < LEVEL).sum())
    return (
        f"{who}: {n_outlying} of {len(table)}{_sample(table, n_cells)} are outlying at a false discovery "
        f"rate of {FDR:.0%}. {low} p-values are below {LEVEL} ({low / len(table):.1%}, expected "
        f"{LEVEL:.0%})."
    )


def _answer(table: pd.DataFrame, outlying: list[str], n_cells: int) -> str:
    n_like, sample = len(table) - len(outlying), _sample(table, n_cells)
    answer = f"{n_like} of {len(table)} cells{sample} are described as well as held-out cells."
    if outlying:
        answer += f" {len(outlying)} cell(s) are outlying, for example {', '.join(outlying[:5])}."
    return answer


def _sample(table: pd.DataFrame, n_cells: int) -> str:
    return f" (a random sample of {n_cells:,})" if len(table) < n_cells else ""


def _least_described(groups: list[str]) -> str:
    more = f" and {len(groups) - N_NAMED} more" if len(groups) > N_NAMED else ""
    return f" Least well described: cells of {', '.join(groups[:N_NAMED])}{more}." if groups else ""


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
