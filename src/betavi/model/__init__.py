"""The models BetaVI, JointVI and EffectVI."""

from __future__ import annotations

from betavi.model.betavi import BetaVI
from betavi.model.collapse.remedies import REMEDIES
from betavi.model.effectvi import EffectVI
from betavi.model.io.hub import hub_card
from betavi.model.io.saving import convert
from betavi.model.jointvi import JointVI

__all__ = ["REMEDIES", "BetaVI", "EffectVI", "JointVI", "convert", "hub_card"]
