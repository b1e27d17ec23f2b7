"""Section on the latent space: the diagnosis of collapse with its evidence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from betavi import pl
from betavi.diagnostics.trust import judge_latent
from betavi.model.report.section import Section, SectionRule, Table, picture_of

if TYPE_CHECKING:
    from betavi.model.report.results import Results

COLUMNS = ["status", "information", "signal", "sensitivity", "sensitivity_error", "agreement", "kl"]


EVIDENCE = (
    "Evidence for each latent dimension, in nats per cell. Signal is the information on which both halves "
    "of the features agree, and agreement is this in standard errors. Sensitivity is the increase in loss "
    "without the dimension, and kl is its price in the loss"
)


def make(results: Results) -> Section:
    """Diagnose the latent space."""
    report = results.diagnosis
    _, _, used = str(report).split("\n", maxsplit=1)[0].partition(": ")
    # "Unclear: 9" could also be read as a number of dimensions
    used = re.sub(r"(\w+): (?=\d)", r"\1: dimension(s) ", used)
    cells = "held-out cells" if report.is_held_out else "training cells"
    sentence = (
        f"{used} The cells differ in {report.spectrum.n_factors} direction(s). "
        f"Tested on {report.n_cells} {cells}."
    )
    tables = [Table(EVIDENCE, report.dimensions[COLUMNS])]
    if report.causes:
        rows = {c.name: {"evidence": c.evidence, "remedy": c.remedy} for c in report.causes}
        causes = pd.DataFrame.from_dict(rows, orient="index").rename_axis("cause")
        tables.append(Table("Causes of unused dimensions", causes))
    if report.modalities:
        tables.append(Table("Signal in each modality, nats per cell", report.by_modality()))
    if len(report.predicted):
        tables.append(Table("Prediction of covariates from the latent space", report.predicted))
    alt = f"Information in each dimension, loss without it, and directions in the data. {used}"
    picture = picture_of(pl.collapse(report), alt)
    return Section(report.verdict, sentence, judge_latent(report), tables, [picture])


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
