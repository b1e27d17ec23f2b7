"""Section on cells: outlier scores, and the cells that are outlying."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi import pl
from betavi.diagnostics.trust import are_many, can_be_flagged, judge_cells, outlying_cells
from betavi.diagnostics.trust.cells import FDR, LEVEL
from betavi.model.core.density import calibration_cells, latent_density
from betavi.model.report.section import Section, SectionRule, Table, counted, picture_of

if TYPE_CHECKING:
    import pandas as pd

    from betavi.model.report.results import Results

MOST_CELLS, N_SHOWN, MOST_LINES = 5000, 25, 6
"""Largest number of scored cells, of listed cells, and of lines in the picture. Not tuned."""

N_NAMED = 3
"""Number of groups that the answer names."""

NOT_FLAGGED = "No single cell could be flagged"

NO_SIGNAL = "No latent dimension carries signal, so the p-values of cells cannot be interpreted. No cell is listed."


def make(results: Results) -> Section:
    """Score cells, and list the outlying ones."""
    adata = results.model.adata if results.cells is None else results.cells
    chosen = results.some_of(np.arange(adata.n_obs), MOST_CELLS)
    obs = adata.obs.iloc[chosen]
    table = results.model.support(results.cells, indices=chosen, **results.quiet)
    if not results.has_signal:
        return Section("not interpretable", NO_SIGNAL, [], [Table("Cells", table, table.iloc[:0])])
    p_values, groups = table["p_value"].to_numpy(), _groups(results, obs)
    findings = judge_cells(p_values, groups, are_new=results.cells is not None)
    table = table.assign(is_outlying=outlying_cells(p_values)).join(obs[_columns(results, obs)])
    ranked = table.rename_axis("cell").sort_values("p_value", kind="stable")
    outlying = ranked.index[ranked["is_outlying"]].astype(str).tolist()
    n_shown = min(max(len(outlying), 5), N_SHOWN)
    caption = f"Cells by p-value, the most outlying first. The page shows {n_shown}"
    answer = _answer(results, table, outlying, adata.n_obs)
    sentence = f"{'Cells' if results.cells is None else 'New cells'}: {answer}"
    lines = _lines(groups, len(table))
    picture = picture_of(pl.support(table, lines), f"Distribution of p-values. {sentence}")
    is_blind = answer.startswith(NOT_FLAGGED)
    verdict = "no single cell can be judged" if is_blind else "as expected"
    if any(finding.level == "care" for finding in findings):
        verdict = "many outlying cells"
    return Section(
        verdict,
        sentence,
        findings,
        [Table(caption, ranked, ranked.iloc[:n_shown])],
        [picture],
        {"Outlying cells": outlying},
        answer + _least_described(p_values, groups),
    )


def _answer(results: Results, table: pd.DataFrame, outlying: list[str], n_cells: int) -> str:
    """Return how many cells are outlying, or that the test cannot find a single one."""
    n_held_out = len(calibration_cells(results.model, latent_density(results.model, False)))
    low = float((table["p_value"] < LEVEL).mean())
    of_low = f"{low:.1%} of the p-values are below {LEVEL} (expected {LEVEL:.0%})."
    sample = f"{len(table):,} cells{_sample(table, n_cells)}"
    if outlying:
        verb = "is" if len(outlying) == 1 else "are"
        return f"{len(outlying):,} of {sample} {verb} outlying, for example {', '.join(outlying[:5])}. {of_low}"
    if can_be_flagged(len(table), n_held_out):
        return f"None of {sample} is outlying. {of_low}"
    return (
        f"{NOT_FLAGGED}, because {counted(n_held_out, 'held-out cell')} are few for {sample}: the "
        f"smallest possible p-value is {1 / (n_held_out + 1):.1g}. {of_low}"
    )


def _sample(table: pd.DataFrame, n_cells: int) -> str:
    return f" (a random sample of {n_cells:,})" if len(table) < n_cells else ""


def _least_described(p_values: np.ndarray, groups: dict[str, np.ndarray]) -> str:
    """Return the groups with too many low p-values, those with the largest share first."""
    known = {name: p_values[mask & np.isfinite(p_values)] for name, mask in groups.items()}
    shares = {name: (own < LEVEL).mean() for name, own in known.items() if are_many(own)}
    names = [
        f"{name} ({share:.0%} below {LEVEL})"
        for name, share in sorted(shares.items(), key=lambda pair: -pair[1])
    ]
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return f" Least well described: cells of {', '.join(names[:N_NAMED])}{more}." if names else ""


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
    "depth. About 1 in 20 ordinary cells has a p-value below 0.05. Cells are "
    f"called outlying at a false discovery rate of {FDR:.0%}.",
    does_not_mean="An outlying cell is not always a bad cell: it may be of a rare or a new type. A cell "
    "that is not outlying can still be a doublet of two common types. If no cell can be flagged alone, "
    "look at the share of low p-values in groups of cells.",
    needs="support",
)
