"""Section on denoising: trust in each gene, from molecular cross-validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from betavi import pl
from betavi.data import COUNTS
from betavi.diagnostics.trust import judge_genes
from betavi.model.report.section import Section, SectionRule, Table, counted, picture_of

if TYPE_CHECKING:
    from betavi.diagnostics import DenoisingReport
    from betavi.model.report.results import Results

N_SHOWN, N_NAMED = 10, 8
"""Number of best and of worst genes in the table, and of names in the answer."""

OTHERS = (
    "For the other features, denoising is not shown to be better than the mean: do not interpret single "
    "cells, but average counts over groups of cells."
)

NAMES = {
    "posterior": "posterior (denoise())",
    "mean": "decoder mean (without the cell's own count)",
    "gene mean x depth": "gene mean x total count",
}
"""Names of methods on the page. The last one is the null model."""

METHODS = ["explained", "poisson_loss", "behind", "behind_se", "mse_log"]

EVIDENCE = (
    "methods, on held-out molecules. Explained is the share of the deviance of 'gene mean x total count'. Behind is the "
    "Poisson loss above that of the best method, with its standard error (se). For losses and mse_log, the "
    "squared error of log counts, lower is better"
)


def make(results: Results) -> Section:
    """Judge denoised values on held-out molecules."""
    section = Section("", "")
    answers, sentences = [], []
    for name, report in results.denoising.items():
        of = "" if name == COUNTS else f"{name}: "
        section.findings += judge_genes(report, name)
        table = report.methods[METHODS].rename_axis("method")
        section.tables.append(Table(_capital(of + EVIDENCE), table, table.rename(index=NAMES)))
        section.tables.append(_genes(report, of))
        sentences.append(of + _sentence(report))
        section.pictures.append(picture_of(pl.denoising(report), of + _sentence(report)))
        trusted = report.genes.index[report.genes["trusted"]]
        section.lists[_capital(f"{of}trusted genes")] = trusted.astype(str).tolist()
        answers.append(_answer(report, of))
    section.sentence, section.answer = " ".join(sentences), " ".join(answers)
    trusted = pd.concat([report.genes["trusted"] for report in results.denoising.values()])
    section.verdict = f"{trusted.mean():.0%} of features trusted"
    return section


def _genes(report: DenoisingReport, of: str) -> Table:
    genes = report.genes.sort_values("z", ascending=False, na_position="last").rename_axis("gene")
    caption = (
        f"{of}genes, sorted by their gain over the mean in standard errors (z). Coverage is the share of new "
        "counts in 90 % intervals, and coverage_error its standard error"
    )
    shown = genes
    if len(genes) > 2 * N_SHOWN:
        known = genes[genes["z"].notna()]
        shown = pd.concat([known.iloc[:N_SHOWN], known.iloc[N_SHOWN:].iloc[-N_SHOWN:]])
        caption += f". The page shows the first {N_SHOWN} and the last {N_SHOWN}"
    return Table(_capital(caption), genes, shown)


def _sentence(report: DenoisingReport) -> str:
    chosen = report.methods.loc[report.chosen]
    worse = (report.genes["explained"].dropna() < 0).mean()
    text = (
        f"The method {NAMES.get(report.chosen, report.chosen)!r} explains {chosen['explained']:.1%} of the "
        "deviance of 'gene mean x total count' on held-out molecules. It is significantly better than the "
        f"mean for {report.genes['trusted'].sum()} of {counted(len(report.genes), 'feature')}. For "
        f"{worse:.1%}, it is worse in this sample."
    )
    best = str(report.methods.index[0])
    if best != report.chosen:
        text += f" The method {NAMES.get(best, best)!r} is better by {chosen['behind']:.2g} nats per entry."
    return text


def _answer(report: DenoisingReport, of: str) -> str:
    genes = report.genes.sort_values("z", ascending=False)
    names = genes.index[genes["trusted"]][:N_NAMED].astype(str)
    examples = f", for example {', '.join(names)}" if len(names) else ""
    others = "" if genes["trusted"].all() else f" {OTHERS}"
    return (
        f"{of}Denoised values are better than the mean of the gene for {genes['trusted'].sum()} of "
        f"{len(genes)} features{examples}.{others}"
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


RULE = SectionRule(
    heading="Denoising: trust in each gene",
    make=make,
    call="model.cross_validate_denoising()",
    means="Some molecules were held out, and a model with the same settings was trained on the others. "
    "A gene is trusted if denoised values predict its held-out molecules better than its mean does, by "
    "two standard errors. The mean of a gene is 'gene mean x total count' of the cell.",
    does_not_mean="A gene that is not trusted need not be badly modelled: it may hardly vary, or have too "
    "few molecules for a test. A trusted gene need not be explained by other genes: its own count in the "
    "cell is also used. Denoised values of two genes are not independent measurements.",
    needs="cross_validate_denoising",
    tests=("genes",),
    most_entries=10_000_000,
)
