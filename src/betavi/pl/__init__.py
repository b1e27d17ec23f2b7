"""Draws results: matplotlib Axes in and out."""

from __future__ import annotations

from betavi.pl.collapse import collapse, collapse_history
from betavi.pl.rate_distortion import rate_distortion
from betavi.pl.translation import translation

__all__ = ["collapse", "collapse_history", "rate_distortion", "translation"]
