"""Rules that lead from measurements to the verdict of a trust report: pure functions of arrays."""

from __future__ import annotations

from betavi.diagnostics.trust.cells import are_many, can_be_flagged, judge_cells, outlying_cells
from betavi.diagnostics.trust.conditions import Confounding, determined_by, judge_conditions
from betavi.diagnostics.trust.counts import Values, judge_scores, judge_values, null_score
from betavi.diagnostics.trust.effects import judge_effects, judge_separation, judge_states
from betavi.diagnostics.trust.genes import judge_coverage, judge_genes
from betavi.diagnostics.trust.latent import judge_latent
from betavi.diagnostics.trust.training import is_falling, judge_training
from betavi.diagnostics.trust.verdict import (
    ANSWERS,
    LEVELS,
    PURPOSES,
    UNMEASURED,
    Finding,
    Overall,
    overall_of,
)

__all__ = [
    "ANSWERS", "LEVELS", "PURPOSES", "UNMEASURED", "Confounding", "Finding", "Overall", "Values",
    "are_many", "can_be_flagged", "determined_by", "is_falling",
    "judge_cells", "judge_conditions", "judge_coverage", "judge_effects", "judge_genes",
    "judge_latent", "judge_scores", "judge_separation", "judge_states", "judge_training", "judge_values", "null_score",
    "outlying_cells", "overall_of",
]  # fmt: skip
