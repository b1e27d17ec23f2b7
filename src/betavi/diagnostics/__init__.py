"""What arrays say of a latent space: pure functions, no models."""

from __future__ import annotations

from betavi.diagnostics.causes import CAUSES, Calls, Cause, Evidence, causes_of
from betavi.diagnostics.choice import BetaSuggestion, suggest
from betavi.diagnostics.collapse import DimensionArrays, judge_dimensions
from betavi.diagnostics.counts import CountScore, CountTerms, GeneMoments, ScoreSums
from betavi.diagnostics.covariates import predicted_from
from betavi.diagnostics.information import (
    ACTIVE,
    active_dimensions,
    dimension_information,
    label_agreement,
    mutual_information,
)
from betavi.diagnostics.report import CollapseReport
from betavi.diagnostics.rescue import RescueReport, best_remedy, gain
from betavi.diagnostics.spectrum import SignalSpectrum, alive_in_theory, signal_spectrum
from betavi.diagnostics.translation import score_translation

__all__ = [
    "ACTIVE",
    "CAUSES",
    "BetaSuggestion",
    "Calls",
    "Cause",
    "CollapseReport",
    "CountScore",
    "CountTerms",
    "DimensionArrays",
    "Evidence",
    "GeneMoments",
    "RescueReport",
    "ScoreSums",
    "SignalSpectrum",
    "active_dimensions",
    "alive_in_theory",
    "best_remedy",
    "causes_of",
    "dimension_information",
    "gain",
    "judge_dimensions",
    "label_agreement",
    "mutual_information",
    "predicted_from",
    "score_translation",
    "signal_spectrum",
    "suggest",
]
