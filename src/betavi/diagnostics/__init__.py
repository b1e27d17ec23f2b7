"""What arrays say of a latent space: pure functions, no models."""

from __future__ import annotations

from betavi.diagnostics.choice import BetaSuggestion, suggest
from betavi.diagnostics.counts import CountScore, CountTerms, GeneMoments, ScoreSums
from betavi.diagnostics.information import (
    active_dimensions,
    dimension_information,
    label_agreement,
    mutual_information,
)

__all__ = [
    "BetaSuggestion",
    "CountScore",
    "CountTerms",
    "GeneMoments",
    "ScoreSums",
    "active_dimensions",
    "dimension_information",
    "label_agreement",
    "mutual_information",
    "suggest",
]
