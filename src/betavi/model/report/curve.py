"""Section on the rate-distortion curve of a model trained for a range of β."""

from __future__ import annotations

from typing import TYPE_CHECKING

from betavi import pl
from betavi.diagnostics import suggest
from betavi.model.report.section import Section, SectionRule, Table, picture_of

if TYPE_CHECKING:
    from betavi.model.report.results import Results

MOST_CELLS = 2000
"""Largest number of cells that are measured. Not tuned."""


def make(results: Results) -> Section:
    """Measure the curve on held-out cells."""
    model = results.model
    if model.module.beta_condition.is_fixed:
        raise ValueError(
            "The model was trained at one β. A curve needs a range of β, such as "
            f"{type(model).__name__}(..., beta=(0.1, 10))."
        )
    cells = results.some_of(model.held_out(model.adata), MOST_CELLS)
    curve = model.rate_distortion(indices=cells, **results.quiet)
    found = suggest(curve)
    sentence = f"Suggested β: {found}"
    picture = picture_of(pl.rate_distortion(curve), f"Curve of rate and distortion. {sentence}")
    table = Table("Rate and distortion at each β, nats per cell", curve.set_index("beta"))
    return Section(f"β = {found.beta:.3g}", sentence, [], [table], [picture])


RULE = SectionRule(
    heading="Rate-distortion curve",
    make=make,
    call="model.rate_distortion(), model.suggest_beta()",
    means="A higher β buys a simpler latent space with worse reconstruction. The suggested β has the "
    "highest bound on the probability of held-out counts.",
    does_not_mean="The suggested β is not best for every use. A lower β separates rare cell types better.",
    needs="rate_distortion",
)
