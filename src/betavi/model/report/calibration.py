"""Section on intervals: the share of new values that 90 % intervals contain."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from betavi.data import COUNTS
from betavi.diagnostics.trust import judge_coverage
from betavi.model.report.section import Section, SectionRule, Table, counted

if TYPE_CHECKING:
    from betavi.model.report.results import Results

MOST_TARGETS, N_BINS = 5000, 5
"""Largest number of features of a predicted modality, and number of bins of the mean count."""


def make(results: Results) -> Section:
    """Measure the coverage of intervals of counts, and of translated modalities."""
    found: dict[str, tuple[float, float]] = {}
    tables = []
    for name, report in results.denoising.items():
        genes = report.genes[report.genes["mean"] > 0]
        label = "new counts" if name == COUNTS else f"new counts of {name}"
        found[label] = _mean_and_error(genes["coverage"])
        bins = pd.qcut(genes["mean"].rank(method="first"), min(N_BINS, len(genes)), labels=False)
        of_bins = genes.groupby(bins).agg(
            features=("mean", "size"), mean_count=("mean", "mean"), coverage=("coverage", "mean")
        )
        of_bins.index = pd.Index([f"{int(bin_) + 1}" for bin_ in of_bins.index], name="bin")
        tables.append(Table(f"Coverage of intervals of {label}, by mean count", of_bins))
    answer = ""
    if hasattr(results.model, "predictability"):
        rows = _translations(results, found)
        if rows:
            caption = "Prediction of one modality from another, for held-out cells"
            table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("prediction")
            tables.append(Table(caption, table))
            answer = _answer(rows)
    findings = judge_coverage(found, "calibration")
    listed = "; ".join(f"{name} {value:.2f}" for name, (value, _) in found.items())
    is_narrow = any(finding.level != "note" for finding in findings)
    verdict = "wider than needed" if findings else "calibrated"
    verdict = "too narrow" if is_narrow else verdict
    sentence = f"Share of new values in 90 % intervals: {listed}."
    return Section(verdict, sentence, findings, tables, answer=answer)


def _answer(rows: dict[str, dict[str, float]]) -> str:
    """Return how many features of each modality another modality predicts."""
    parts = [
        f"{name}: {row['predictable features']} of {counted(int(row['features']), 'feature')}, median "
        f"correlation {row['median correlation']:.2f}"
        for name, row in rows.items()
    ]
    return f"Predicted better than by the mean, {'; '.join(parts)}."


def _translations(
    results: Results, found: dict[str, tuple[float, float]]
) -> dict[str, dict[str, float]]:
    """Add the coverage of each translation to ``found``, and return a table of translations."""
    model, rows = results.model, {}
    for source, target in permutations(model.modalities, 2):
        if len(model.features(target)) > MOST_TARGETS:
            continue
        try:
            scores = model.predictability(source, target, **results.quiet)
        except ValueError:
            # too few held-out cells have both
            continue
        name = f"{target} from {source}"
        rows[name] = {
            "predictable features": int(scores["is_predictable"].sum()),
            "features": len(scores),
            "median correlation": float(scores["pearson"].median()),
            "coverage": float(scores["coverage"].mean()),
        }
        if scores["coverage"].notna().any():
            found[name] = _mean_and_error(scores["coverage"])
    return rows


def _mean_and_error(coverage: pd.Series) -> tuple[float, float]:
    known = coverage.dropna()
    return float(known.mean()), float(known.std() / np.sqrt(max(len(known), 1)))


RULE = SectionRule(
    heading="Calibration of intervals",
    make=make,
    call="model.cross_validate_denoising(), model.predictability(source, target)",
    means="A 90 % interval should contain 0.90 of new values. The coverage was measured on held-out "
    "molecules, and for translations on held-out cells.",
    does_not_mean="A coverage of 0.90 on average does not hold for each gene. It holds for cells like "
    "those of this data set.",
    needs="cross_validate_denoising",
    most_entries=10_000_000,
)
