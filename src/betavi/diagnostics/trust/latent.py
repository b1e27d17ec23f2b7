"""Verdict on the latent space, from the diagnosis of collapse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from betavi.diagnostics.trust.verdict import Finding

if TYPE_CHECKING:
    from betavi.diagnostics.report import CollapseReport

NOISY = 0.25
"""Share of the information of all dimensions from which on noise and depth matter. Not tuned."""

APART = 0.25
"""Share of the way from guessing a covariate to knowing it from which on a note is made. Not tuned."""

READS_Z = ("map", "dimensions", "genes", "conditions")
"""Uses that need a latent space with signal. The effects of perturbations do not read it."""


def judge_latent(report: CollapseReport) -> list[Finding]:
    """Judge a latent space by its diagnosis.

    Parameters
    ----------
    report
        Result of ``diagnose()``.

    Returns
    -------
    Findings. Unused dimensions are a note, unless they carry much noise.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=2, beta=1000.0)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> judge_latent(model.diagnose(show_progress=False))[0].section
    'latent'
    """
    findings = _without_signal(report)
    if not findings:
        findings = [
            *_of_verdict(report),
            *_of_unused(report),
            *_of_unclear(report),
            *_of_covariates(report),
        ]
    for name in report.ignored_modalities:
        remedy = " ".join(cause.remedy for cause in report.modalities[name].causes)
        text = f"The modality {name!r} alone uses no latent dimension, so it hardly shapes the map."
        findings.append(Finding("care", "latent", text, remedy, ("map", "genes")))
    if not report.is_held_out:
        text = "The latent space was tested on training cells, whose noise the model may have memorised."
        remedy = "Hold out cells: train(train_size=0.9)."
        findings.append(Finding("care", "latent", text, remedy, READS_Z))
    return findings


def _without_signal(report: CollapseReport) -> list[Finding]:
    """Report counts in which no genes vary together."""
    if report.spectrum.n_factors:
        return []
    text = (
        "The counts have no shared signal: features do not vary together more than in random counts. "
        "A latent space cannot describe such cells."
    )
    few = [cause.remedy for cause in report.causes if cause.name == "too_few_counts"]
    remedy = " ".join(
        [
            *few,
            "Check that the matrix is intact (rows and columns not shuffled, cells not all alike), and that "
            "batch and covariates do not explain everything.",
        ]
    )
    if few:
        text += f" The median total is {report.spectrum.median_total:.0f} counts per cell."
    if report.covariates > 1:
        text += f" The covariates explain {report.covariates:.1f} nats per cell."
    return [Finding("stop", "latent", text, remedy, READS_Z)]


def _of_verdict(report: CollapseReport) -> list[Finding]:
    n_latent = len(report.dimensions)
    remedy = " ".join(cause.remedy for cause in report.causes[:1])
    if report.verdict == "collapsed":
        text = (
            f"The latent space has collapsed: none of the {n_latent} dimensions carries signal. "
            f"{_evidence(report)}"
        )
        return [Finding("stop", "latent", text.strip(), remedy, READS_Z)]
    if report.verdict == "unclear":
        text = (
            f"No latent dimension certainly carries signal: {len(report.unclear_dimensions)} of "
            f"{n_latent} are unclear with {report.n_cells} cells."
        )
        remedy = "Hold out more cells: train(train_size=0.8)."
        return [Finding("care", "latent", text, remedy, READS_Z)]
    return []


def _evidence(report: CollapseReport) -> str:
    return report.causes[0].evidence if report.causes else ""


def _of_unused(report: CollapseReport) -> list[Finding]:
    """Report unused dimensions of a latent space that carries signal."""
    if report.verdict != "partial":
        return []
    information = report.dimensions["information"]
    wrong = sorted(report.noise_dimensions + report.depth_dimensions)
    share = float(information.loc[wrong].sum() / max(float(information.sum()), 1e-12))
    findings = []
    if wrong:
        text = (
            f"{_named(wrong, 'carries', 'carry')} only noise or the total count of a cell, with {share:.0%} "
            "of the information of all dimensions."
        )
        level = "care" if share >= NOISY else "note"
        remedy = " ".join(cause.remedy for cause in report.causes[:1]) if level == "care" else ""
        findings.append(Finding(level, "latent", text, remedy, ("map", "dimensions")))
    if report.inactive_dimensions:
        text = f"{_named(report.inactive_dimensions, 'is', 'are')} inactive. This does no harm."
        findings.append(Finding("note", "latent", text))
    return findings


def _of_unclear(report: CollapseReport) -> list[Finding]:
    """Report unclear dimensions of a latent space that carries signal."""
    if not report.unclear_dimensions or not report.active_dimensions:
        return []
    text = (
        f"{_named(report.unclear_dimensions, 'is', 'are')} unclear: with {report.n_cells} cells, signal and "
        "noise cannot be separated."
    )
    return [Finding("note", "latent", text, "", ("dimensions",))]


def _named(dimensions: list[int], one: str, several: str) -> str:
    """Return the subject and the verb of a sentence about dimensions."""
    if len(dimensions) == 1:
        return f"Dimension {dimensions[0]} {one}"
    return f"Dimensions {', '.join(map(str, dimensions))} {several}"


def _of_covariates(report: CollapseReport) -> list[Finding]:
    """Report covariates that the latent space still tells apart."""
    findings = []
    for name, row in report.predicted.iterrows():
        if row["score"] - row["guess"] > APART * (1 - row["guess"]):
            text = (
                f"The latent space still predicts {name!r}: {row['measure']} {row['score']:.2f}, and "
                f"{row['guess']:.2f} by guessing. This is right if its groups differ in their cells. "
                "Otherwise, a part of its effect remains."
            )
            findings.append(Finding("note", "latent", text, "", ("map",)))
    return findings
