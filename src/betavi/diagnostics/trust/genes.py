"""Trust in the denoised values of genes, and in intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scipy.stats import norm

from betavi.diagnostics.intervals import INTERVAL
from betavi.diagnostics.trust.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from betavi.diagnostics.denoising import DenoisingReport

N_ERRORS = 2.0
"""Standard errors of a significant difference."""

BY_CHANCE = float(norm.sf(N_ERRORS))
"""Share of genes without signal that exceed 2 standard errors on one side."""

HARMED = 0.05
"""Share of genes that denoising makes significantly worse, from which on a report warns. About 0.02
are expected by chance. Not tuned."""

OFF = 0.05
"""Difference from the nominal coverage that a report warns of. Not tuned."""


def judge_genes(report: DenoisingReport, name: str = "X") -> list[Finding]:
    """Judge denoising by molecular cross-validation.

    Parameters
    ----------
    report
        Result of ``cross_validate_denoising()`` for one modality.
    name
        Name of the modality.

    Returns
    -------
    Findings.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> report = model.cross_validate_denoising(max_epochs=2, show_progress=False)
    >>> all(finding.section == "denoising" for finding in judge_genes(report))
    True
    """
    of = "" if name == "X" else f" of {name!r}"
    findings = []
    if report.trusted_share <= BY_CHANCE:
        text = (
            f"Denoising predicts held-out molecules{of} better than the mean of the gene for "
            f"{report.genes['trusted'].sum()} of {len(report.genes)} genes, as few as by chance."
        )
        remedy = "Do not use denoised values. Average counts over groups of cells."
        return [Finding("stop", "denoising", text, remedy, ("genes",))]
    harmed = float((report.genes["z"] < -N_ERRORS).mean())
    if harmed > HARMED:
        text = f"Denoising is significantly worse than the mean for {harmed:.0%} of the genes{of}."
        remedy = "Use denoised values of the trusted genes only."
        findings.append(Finding("care", "denoising", text, remedy, ("genes",)))
    best, own = report.methods.index[0], report.methods.loc[report.chosen]
    if best != report.chosen and own["behind"] > N_ERRORS * own["behind_se"]:
        text = (
            f"The baseline {best!r} predicts held-out molecules{of} better than the model: it explains "
            f"{report.methods.loc[best, 'explained']:.1%} of the deviance, and the model "
            f"{own['explained']:.1%}."
        )
        remedy = f"Denoise{of} with {best!r}."
        findings.append(Finding("care", "denoising", text, remedy, ("genes",)))
    return findings


def judge_coverage(found: Mapping[str, tuple[float, float]], section: str) -> list[Finding]:
    """Compare the coverage of 90 % intervals with 0.9.

    Parameters
    ----------
    found
        Mean coverage and its standard error, by name of the intervals.
    section
        Section of the report.

    Returns
    -------
    Findings: coverages that differ from 0.9 by more than 0.05 and two standard errors.

    Examples
    --------
    >>> [f.text for f in judge_coverage({"counts": (0.8, 0.01)}, "calibration")]
    ['90 % intervals of counts contain 0.80 of new values: they are too narrow.']
    """
    findings = []
    for name, (coverage, error) in found.items():
        off = coverage - INTERVAL
        if abs(off) > max(OFF, N_ERRORS * error):
            kind = "narrow" if off < 0 else "wide"
            text = f"90 % intervals of {name} contain {coverage:.2f} of new values: they are too {kind}."
            remedy = "Read these intervals with this coverage."
            level = "care" if off < 0 else "note"
            purposes = ("predictions",) if section == "effects" else ("genes",)
            findings.append(Finding(level, section, text, remedy if off < 0 else "", purposes))
    return findings
