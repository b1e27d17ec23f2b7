"""Section on latent dimensions: the genes that each one changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from betavi import pl
from betavi.model.report.section import Section, SectionRule, Table, counted, picture_of

if TYPE_CHECKING:
    from betavi.diagnostics import ExplainedDimensions
    from betavi.model.report.results import Results

N_GENES, MOST_CELLS = 10, 5000
"""Number of genes that are named for each direction, and largest number of cells that are read."""


def make(results: Results) -> Section:
    """Explain the dimensions that carry signal."""
    options = {"labels_key": results.labels_key, "n_cells": 200, "n_genes": N_GENES}
    explained = results.model.explain_dimensions(seed=results.seed, **options, **results.quiet)
    left_out = {"low", "median", "high"}
    if results.model.summary_stats.n_batch < 2:
        left_out.add("explained_by_batch")
    columns = [
        name
        for name in explained.dimensions
        if name not in left_out and not name.startswith("distortion_increase_")
    ]
    table = explained.dimensions[columns]
    caption = "Each latent dimension, nats per cell"
    if "label" in table:
        caption += (
            ". Label is the label that the dimension separates best from the others, and label_information "
            "the nats about it. Dimensions without signal have no label"
        )
    tables = [Table(caption, table, without_unused_labels(table))]
    programs = _programs(explained)
    if len(programs):
        caption = f"Genes that rise most along each dimension, at most {N_GENES}"
        tables.append(Table(caption, programs))
    used = explained.dimensions.index[explained.dimensions["status"] == "used"].tolist()
    verb = "carries signal and has genes" if len(used) == 1 else "carry signal and have genes"
    sentence = f"{counted(len(used), 'dimension')} {verb}."
    if used:
        sentence += f" {'It is' if len(used) == 1 else 'They are'} {', '.join(map(str, used))}."
    alt = f"Nats of each dimension, and fold changes of its top genes. {sentence}"
    picture = picture_of(pl.dimensions(explained), alt)
    return Section(f"{len(used)} with genes", sentence, [], tables, [picture])


def without_unused_labels(dimensions: pd.DataFrame) -> pd.DataFrame:
    """Leave out labels of dimensions without signal. Noise and depth can follow a label by accident."""
    if "label" not in dimensions:
        return dimensions
    has_signal = dimensions["status"].isin(["used", "unclear"])
    labels = dimensions["label"].astype(object).where(has_signal, None)
    information = dimensions["label_information"].where(has_signal)
    return dimensions.assign(label=labels, label_information=information)


def _programs(explained: ExplainedDimensions) -> pd.DataFrame:
    """Return the names of the genes of each dimension and sign."""
    keys = ["dimension", "sign", "modality"]
    rows: dict[str, dict[str, str]] = {}
    for (dimension, sign, modality), genes in explained.genes.groupby(keys, sort=False):
        step = f"{dimension}{sign}"
        row = rows.setdefault(step, {})
        row["genes" if modality == "X" else str(modality)] = ", ".join(genes["gene"].astype(str))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("dimension and sign")


RULE = SectionRule(
    heading="Programs of latent dimensions",
    make=make,
    call="model.explain_dimensions()",
    means="Cells were decoded at both ends of a step along a dimension. The listed genes rise most. Only "
    "dimensions with signal have genes.",
    does_not_mean="A dimension of one trained model is not a pathway. Another training run can mix the "
    "same programs differently, unless the decoder is additive. Genes were not tested for significance. A dimension that carries only the total count of a cell can "
    "still separate cell types that differ in their total count.",
    needs="explain_dimensions",
)
