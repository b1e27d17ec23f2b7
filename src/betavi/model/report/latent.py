"""Section on the latent space: the diagnosis of collapse with its evidence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from betavi import pl
from betavi.diagnostics.trust import judge_latent
from betavi.model.report.section import Section, SectionRule, Table, counted, picture_of

if TYPE_CHECKING:
    from betavi.diagnostics import CollapseReport
    from betavi.model.report.results import Results

COLUMNS = ["status", "information", "signal", "sensitivity", "sensitivity_error", "agreement", "kl"]


EVIDENCE = (
    "Evidence for each latent dimension, in nats per cell. Information is what the dimension tells about the "
    "cell, noise included. Signal is the information on which both halves "
    "of the features agree, and agreement is this in standard errors. Sensitivity is the increase in loss "
    "without the dimension, and kl is its price in the loss"
)


def make(results: Results) -> Section:
    """Diagnose the latent space."""
    report = results.diagnosis
    _, _, used = str(report).split("\n", maxsplit=1)[0].partition(": ")
    # "Unclear: 9" could also be read as a number of dimensions
    used = re.sub(r"(\w+): (?=\d+\.)", r"\1: dimension ", used)
    used = re.sub(r"(\w+): (?=\d+,)", r"\1: dimensions ", used)
    cells = "held-out cells" if report.is_held_out else "training cells"
    findings = judge_latent(report)
    is_harmless = _is_harmless(report)
    sentence = f"{used}{' No change is needed.' if is_harmless else ''} {_directions(report)} "
    sentence += f"Tested on {report.n_cells} {cells}."
    tables = [Table(EVIDENCE, report.dimensions[COLUMNS])]
    if report.causes and not is_harmless:
        rows = {c.name: {"evidence": c.evidence, "remedy": c.remedy} for c in report.causes}
        causes = pd.DataFrame.from_dict(rows, orient="index").rename_axis("cause")
        tables.append(Table("Causes of unused dimensions", causes))
    if report.modalities:
        tables.append(Table("Signal in each modality, nats per cell", report.by_modality()))
    if len(report.predicted):
        tables.append(Table("Prediction of covariates from the latent space", report.predicted))
    alt = f"Information in each dimension, loss without it, and directions in the data. {used}"
    picture = picture_of(pl.collapse(report), alt)
    n_used = report.active_dimensions
    carry = "dimension carries signal" if n_used == 1 else "dimensions carry signal"
    remarks = {"dimensions": f"{n_used} {carry}. Check the meaning in a second training run."}
    return Section(report.verdict, sentence, findings, tables, [picture], remarks=remarks)


def _is_harmless(report: CollapseReport) -> bool:
    """Return True if most dimensions are used, and nothing but their number leaves others unused."""
    is_partial = report.verdict == "partial" and not report.ignored_modalities
    is_few = 2 * report.active_dimensions >= len(report.dimensions)
    is_number = all(cause.name == "too_many_dimensions" for cause in report.causes)
    return (
        is_partial and is_few and is_number and all(f.level == "note" for f in judge_latent(report))
    )


def _directions(report: CollapseReport) -> str:
    """Return the number of directions in which cells differ, in a sentence."""
    n_factors = report.spectrum.n_factors
    if n_factors <= report.active_dimensions:
        return f"The cells differ in {counted(n_factors, 'direction')}."
    return f"The cells differ in {counted(n_factors, 'direction')}: one dimension can represent several of them."


RULE = SectionRule(
    heading="Latent space",
    make=make,
    call="model.diagnose()",
    means="A used dimension carries signal: decoding is worse without it, and two random halves of the "
    "features agree on its value. Noise and depth do not agree in this way.",
    does_not_mean="Signal need not be biology. It can be a technical difference between cells that is "
    "not among the registered covariates. A used dimension need not have a simple meaning.",
    needs="diagnose",
    tests=("map", "dimensions"),
)
