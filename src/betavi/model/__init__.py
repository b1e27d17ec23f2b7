"""What the user holds."""

from __future__ import annotations

from betavi.model.betavi import BetaVI

__all__ = ["BetaVI"]
