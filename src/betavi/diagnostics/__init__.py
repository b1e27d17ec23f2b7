"""Diagnostics of a latent space: pure functions of arrays, without models."""

from __future__ import annotations

from betavi.diagnostics.causes import CAUSES, Calls, Cause, CauseRule, Evidence, causes_of
from betavi.diagnostics.choice import BetaSuggestion, suggest
from betavi.diagnostics.collapse import UNUSED, DimensionArrays, judge_dimensions
from betavi.diagnostics.counts import CountScore, CountTerms, GeneMoments, ScoreSums
from betavi.diagnostics.covariates import predicted_from
from betavi.diagnostics.denoising import DenoisingReport, report_denoising
from betavi.diagnostics.density import LatentDensity, fit_density, on_simplex
from betavi.diagnostics.dimension_relations import (
    axis_scores,
    label_information,
    variance_explained,
)
from betavi.diagnostics.dimensions import (
    DecodedCells,
    EffectSums,
    ExplainedDimensions,
    GeneEffects,
    gene_tables,
)
from betavi.diagnostics.false_signals import (
    Shuffled,
    correlated_share,
    marker_share,
    shuffle_genes,
    some_of_each,
)
from betavi.diagnostics.held_out import (
    DenoisingScore,
    HeldOutMolecules,
    log_normalised,
    nb_deviance,
    poisson_deviance,
    poisson_loss,
)
from betavi.diagnostics.holes import Holes, find_holes
from betavi.diagnostics.information import (
    ACTIVE,
    active_dimensions,
    dimension_information,
    label_agreement,
    mutual_information,
)
from betavi.diagnostics.intervals import (
    FEWEST_CALIBRATION_CELLS,
    INTERVAL,
    IntervalCalibration,
    calibrate_intervals,
    cross_calibrated,
)
from betavi.diagnostics.labels import (
    Classifier,
    LabelCalibration,
    calibrate_labels,
    fit_classifier,
    label_loss,
    log_shares,
)
from betavi.diagnostics.new_counts import new_count_coverage, new_count_interval
from betavi.diagnostics.novelty import NoveltyTest, fit_novelty
from betavi.diagnostics.paths import along_density, straight
from betavi.diagnostics.report import CollapseReport
from betavi.diagnostics.rescue import RescueReport, best_remedy, gain
from betavi.diagnostics.smoothing import BASELINES, NULL
from betavi.diagnostics.spectrum import SignalSpectrum, alive_in_theory, signal_spectrum
from betavi.diagnostics.support import CellScores, DensityCalibration, SupportCalibration
from betavi.diagnostics.switches import genes_on_path
from betavi.diagnostics.thinning import Thinned, molecules, thin
from betavi.diagnostics.translation import binomial_error, is_inside, score_translation

__all__ = [
    "ACTIVE", "BASELINES", "CAUSES", "FEWEST_CALIBRATION_CELLS", "INTERVAL", "NULL", "UNUSED",
    "BetaSuggestion", "Calls", "Cause", "CauseRule", "CellScores", "Classifier", "CollapseReport",
    "CountScore", "CountTerms", "DecodedCells", "DenoisingReport", "DenoisingScore", "DensityCalibration",
    "DimensionArrays", "EffectSums", "Evidence", "ExplainedDimensions", "GeneEffects", "GeneMoments", "HeldOutMolecules", "Holes",
    "IntervalCalibration", "LabelCalibration", "LatentDensity", "NoveltyTest",
    "RescueReport", "ScoreSums", "Shuffled", "SignalSpectrum", "SupportCalibration", "Thinned",
    "active_dimensions", "alive_in_theory", "along_density", "axis_scores", "best_remedy", "binomial_error",
    "calibrate_intervals", "calibrate_labels", "causes_of", "correlated_share", "cross_calibrated",
    "dimension_information", "find_holes", "fit_classifier", "fit_density", "fit_novelty",
    "gain", "gene_tables", "genes_on_path", "is_inside", "judge_dimensions", "label_agreement",
    "label_information",
    "label_loss", "log_normalised", "log_shares", "marker_share", "molecules",
    "mutual_information", "nb_deviance", "new_count_coverage", "new_count_interval", "on_simplex",
    "poisson_deviance", "poisson_loss", "predicted_from", "report_denoising", "score_translation",
    "shuffle_genes", "signal_spectrum", "some_of_each", "straight", "suggest", "thin", "variance_explained",
]  # fmt: skip
