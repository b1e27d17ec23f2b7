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
from betavi.model.report.section import Section, SectionRule, Table, picture_of
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


def make(results: Results) -> Section:
    """Compare predictions of left-out conditions with baselines."""
    model, tables, sentences = results.model, [], []
    findings: list[Finding] = []
    coverage: dict[str, tuple[float, float]] = {}
    for split, name in SPLITS.items():
        try:
            table = model.evaluate(split, seed=results.seed, **results.quiet)
        except ValueError as error:
            sentences.append(f"{name.capitalize()}: not tested. {error}")
            continue
        findings += judge_effects(table, split)
        tables.append(
            Table(f"Predictions of left-out {name}", table[COLUMNS].rename_axis("method"))
        )
        coverage[f"left-out {name}"] = float(table.loc[OWN, "coverage"]), 0.0
        sentences.append(
            f"{name.capitalize()}: EffectVI gains {table.loc[OWN, 'share']:.0%} of the distance between "
            f"no change and a perfect prediction."
        )
    findings += judge_coverage(coverage, "effects")
    separate, perturbations = _unseparated(results), model.conditions.perturbations
    findings += judge_separation(separate, len(perturbations))
    # in a screen with several contexts, names continue with the context
    lost = [
        p
        for p in perturbations
        if any(name == p or name.startswith(f"{p} in ") for name in separate)
    ]
    try:
        states = model.state_information(seed=results.seed)
    except ValueError as error:
        sentences.append(f"States: not tested. {error}")
    else:
        findings += judge_states(states)
        caption = "Information of latent states about the perturbation, nats"
        tables.append(Table(caption, states.rename_axis("context")))
    n_effects = len(perturbations)
    answer = f"Effects of {n_effects - len(lost)} of {n_effects} perturbations can be estimated."
    verdict = (
        "doubtful" if any(f.level != "note" for f in findings) else "better than the baselines"
    )
    if not coverage:
        verdict = "predictions not tested"
    return Section(verdict, " ".join([answer, *sentences]), findings, tables, answer=answer)


def _unseparated(results: Results) -> dict[str, list[str]]:
    """Return effects that never vary separately, with what they vary with."""
    model = results.model
    groups = groups_of(model.adata_manager, model.seen(model.adata))
    return confounded(model.module.stored_estimate(), model.conditions, groups)


def make_interactions(results: Results) -> Section:
    """List the interactions of measured pairs."""
    by_gene, pairs = results.model.interactions()
    columns = ["pair", "gene", "estimate", "error", "fdr"]
    genes = by_gene.sort_values("fdr", kind="stable")[columns].set_index("gene")
    shown = genes[genes["fdr"] < 0.1].iloc[:N_SHOWN]
    counts = pairs["kind"].value_counts()
    sentence = f"{len(pairs)} pair(s): {', '.join(f'{n} {kind}' for kind, n in counts.items())}."
    tables = [Table("Pairs", pairs), Table("Most significant genes", genes, shown)]
    pictures = []
    if len(shown):
        names = by_gene.loc[by_gene["pair"].isin(pairs.index[:N_SHOWN])]
        alt = f"Heat map of interactions of genes and pairs. {sentence}"
        pictures.append(picture_of(pl.interactions(names), alt))
    n_significant = int((pairs["n_genes"] > 0).sum())
    return Section(
        f"{n_significant} of {len(pairs)} pairs interact", sentence, [], tables, pictures
    )


RULE = SectionRule(
    heading="Effects of perturbations",
    make=make,
    call="model.evaluate(split), model.state_information()",
    means="Conditions were left out in turn, and predicted from the others. The baselines are simple: no "
    "change, means of other conditions, sums of single effects. A model that does not beat them "
    "adds nothing for new conditions.",
    does_not_mean="A good prediction of left-out conditions of this screen does not show that conditions "
    "of another kind are predicted as well.",
    needs="evaluate",
    tests=("effects",),
    is_slow=True,
)

INTERACTIONS = SectionRule(
    heading="Interactions of pairs",
    make=make_interactions,
    call="model.interactions()",
    means="An interaction is the change by a pair minus the sum of the changes by each perturbation "
    "alone, in log2 units.",
    does_not_mean="An interaction is a departure from a sum on the log scale. On another scale, the same "
    "counts can be additive. With few replicates, p-values are too small.",
    needs="interactions",
)
