"""What the user holds."""

from __future__ import annotations

from betavi.model.betavi import BetaVI
from betavi.model.jointvi import JointVI
from betavi.model.remedies import REMEDIES

__all__ = ["REMEDIES", "BetaVI", "JointVI"]
