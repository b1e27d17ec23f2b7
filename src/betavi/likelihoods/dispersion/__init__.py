"""Dispersions, one file each: one value per gene, or per gene and batch, label or cell."""

from __future__ import annotations

from betavi.likelihoods.dispersion._base import Dispersion, DispersionSizes
from betavi.likelihoods.dispersion.gene import GeneDispersion
from betavi.likelihoods.dispersion.gene_batch import GeneBatchDispersion
from betavi.likelihoods.dispersion.gene_cell import GeneCellDispersion
from betavi.likelihoods.dispersion.gene_label import GeneLabelDispersion

DISPERSIONS: dict[str, type[Dispersion]] = {
    "gene": GeneDispersion,
    "gene-batch": GeneBatchDispersion,
    "gene-label": GeneLabelDispersion,
    "gene-cell": GeneCellDispersion,
}
"""Dispersions by name, ``dispersion=``."""

__all__ = ["DISPERSIONS", "Dispersion", "DispersionSizes"]
