"""Sections on perturbations: left-out conditions beside baselines, and interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from betavi import pl
from betavi.diagnostics.trust import (
    judge_coverage,
    judge_effects,
    judge_separation,
    judge_states,
)
from betavi.model.report.section import Section, SectionRule, Table, counted, picture_of
from betavi.module.effect_groups import groups_of
from betavi.module.effect_warnings import confounded

if TYPE_CHECKING:
    from betavi.diagnostics.trust import Finding
    from betavi.model.report.results import Results

SPLITS = {"combination": "combinations", "context": "contexts", "dose": "doses"}
"""Kinds of left-out conditions, with their plural."""

COLUMNS = ["l2", "share", "r2", "coverage"]
OWN = "EffectVI"
N_SHOWN = 20

FDR, NONE_FOUND = 0.1, "none found"
"""False discovery rate of interacting genes, and kind of a pair without them on the page."""

PAIRS = "Pairs. Size is the norm of the shrunken interactions of all genes, log2, also of those by chance"


def make(results: Results) -> Section:
    """Compare predictions of left-out conditions with baselines."""
    section = Section("predictions not tested", "", untested=("predictions",))
    sentences = [_add_split(section, results, split) for split in SPLITS]
    lost, findings = _unseparated(results)
    section.findings += findings
    sentences.append(_add_states(section, results))
    n_effects = len(results.model.conditions.perturbations)
    section.answer = (
        f"Effects of {n_effects - len(lost)} of {n_effects} perturbations can be estimated. Single genes "
        "were not tested: read the interval of each gene from predict()."
    )
    section.remarks["effects"] = (
        "Their accuracy was not tested: only predictions of left-out conditions can be compared with data. "
        "Read each effect with its interval."
    )
    section.sentence = " ".join([section.answer, *filter(None, sentences)])
    # a baseline that is as good limits predictions, and not the effects
    if any(
        f.level == "stop" or (f.level == "care" and "effects" in f.purposes)
        for f in section.findings
    ):
        section.verdict = "doubtful"
    return section


def _add_split(section: Section, results: Results, split: str) -> str:
    """Add the scores of one kind of left-out conditions, and return a sentence about them."""
    name = SPLITS[split]
    try:
        table = results.model.evaluate(split, seed=results.seed, **results.quiet)
    except ValueError as error:
        return f"{name.capitalize()}: not tested. {error}"
    coverage = {f"left-out {name}": (float(table.loc[OWN, "coverage"]), 0.0)}
    found = judge_effects(table, split)
    section.findings += found + judge_coverage(coverage, "effects")
    section.untested = ()
    caption = f"Predictions of left-out {name}: distance (l2) from the truth, and other scores"
    section.tables.append(Table(caption, table[COLUMNS].rename_axis("method")))
    section.verdict = "not better than the baselines" if found else "better than the baselines"
    return (
        f"{name.capitalize()}: EffectVI gains {table.loc[OWN, 'share']:.0%} of the distance between no "
        f"change and a perfect prediction. Its intervals contain {table.loc[OWN, 'coverage']:.2f} of the "
        "genes (nominal 0.90)."
    )


def _add_states(section: Section, results: Results) -> str:
    """Add the information of the latent states, and return why they were not measured."""
    try:
        states = results.model.state_information(seed=results.seed)
    except ValueError as error:
        return f"States: not tested. {error}"
    section.findings += judge_states(states)
    caption = "Information of latent states about the perturbation, nats"
    section.tables.append(Table(caption, states.rename_axis("context")))
    return ""


def _unseparated(results: Results) -> tuple[list[str], list[Finding]]:
    """Return the perturbations whose effects never vary separately, and the finding."""
    model = results.model
    groups = groups_of(model.adata_manager, model.seen(model.adata))
    found = confounded(model.module.stored_estimate(), model.conditions, groups)
    # in a screen with several contexts, names continue with the context
    lost = [
        name
        for name in model.conditions.perturbations
        if any(key == name or key.startswith(f"{name} in ") for key in found)
    ]
    return lost, judge_separation(found, len(model.conditions.perturbations))


def make_interactions(results: Results) -> Section:
    """List the interactions of measured pairs."""
    by_gene, pairs = results.model.interactions()
    columns = ["pair", "gene", "estimate", "error", "fdr"]
    genes = by_gene.sort_values("fdr", kind="stable")[columns].set_index("gene")
    shown = genes[genes["fdr"] < FDR].iloc[:N_SHOWN]
    # a pair without significant genes was not shown to be additive
    words = pairs.assign(kind=pairs["kind"].where(pairs["n_genes"] > 0, NONE_FOUND))
    counts = words["kind"].value_counts()
    sentence = (
        f"{counted(len(pairs), 'pair')}: {', '.join(f'{n} {kind}' for kind, n in counts.items())}."
    )
    tables = [Table(PAIRS, pairs, words), Table("Most significant genes", genes, shown)]
    pictures = []
    if len(shown):
        names = by_gene.loc[by_gene["pair"].isin(pairs.index[:N_SHOWN])]
        alt = f"Heat map of interactions of genes and pairs. {sentence}"
        pictures.append(picture_of(pl.interactions(names), alt))
    n_significant = int((pairs["n_genes"] > 0).sum())
    found = f"{n_significant} of {counted(len(pairs), 'pair')}"
    answer = (
        f"Interactions: {found} {'has' if n_significant == 1 else 'have'} significant genes at a false "
        f"discovery rate of {FDR:.0%}."
    )
    return Section(f"{found} with interactions", sentence, [], tables, pictures, answer=answer)


RULE = SectionRule(
    heading="Effects of perturbations",
    make=make,
    call="model.evaluate(split), model.state_information()",
    means="Conditions were left out in turn, and predicted from the others. The baselines are simple: no "
    "change, means of other conditions, sums of single effects. A model that does not beat them "
    "adds nothing for new conditions. The rows 'split half' and 'better single' read the left-out cells, so "
    "they are no baselines. The split half predicts one half of these cells from the other half: its "
    "distance shows how noisy the cells are.",
    does_not_mean="A good prediction of left-out conditions of this screen does not show that conditions "
    "of another kind are predicted as well.",
    needs="evaluate",
    tests=("effects", "predictions"),
    most_entries=100_000_000,
)

INTERACTIONS = SectionRule(
    heading="Interactions of pairs",
    make=make_interactions,
    call="model.interactions()",
    means="An interaction is the change by a pair minus the sum of the changes by each perturbation "
    "alone, in log2 units. In a pair of the kind 'none found', no gene is significant.",
    does_not_mean="An interaction is a departure from a sum on the log scale. On another scale, the same "
    "counts can be additive. With few replicates, p-values are too small. A very large estimate is often that "
    "of a gene with almost no counts: read its error, and look at its raw counts.",
    needs="interactions",
)
