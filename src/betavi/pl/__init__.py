"""Draws results; matplotlib Axes in and out."""

from __future__ import annotations

from betavi.pl.rate_distortion import rate_distortion

__all__ = ["rate_distortion"]
