"""Table of the sections of a report, in the order of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from betavi.model.report import (
    calibration,
    cells,
    counts,
    curve,
    data,
    dimensions,
    effects,
    genes,
    latent,
    training,
)

if TYPE_CHECKING:
    from betavi.model.report.section import SectionRule

SECTIONS: dict[str, SectionRule] = {
    "data": data.RULE,
    "training": training.RULE,
    "latent": latent.RULE,
    "rate_distortion": curve.RULE,
    "counts": counts.RULE,
    "denoising": genes.RULE,
    "calibration": calibration.RULE,
    "cells": cells.RULE,
    "dimensions": dimensions.RULE,
    "effects": effects.RULE,
    "interactions": effects.INTERACTIONS,
}
"""Sections of a report by the name that ``sections=`` takes."""
