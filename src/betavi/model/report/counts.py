"""Section on held-out counts: the model beside PCA and beside a null model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from scvi import REGISTRY_KEYS

from betavi.data import COUNTS
from betavi.diagnostics.trust import judge_scores, null_score
from betavi.metrics import LinearModel
from betavi.model.report.section import Section, SectionRule, Table

if TYPE_CHECKING:
    from betavi.diagnostics.trust import Finding
    from betavi.model.report.results import Results

MOST_SCORED, MOST_FITTED, N_COMPONENTS = 1000, 5000, 10
"""Largest number of held-out cells to score, of training cells to fit baselines to, and of components
of PCA. Not tuned."""

NULL = "null model: mean of each gene"


def make(results: Results) -> Section:
    """Score held-out counts of each modality that has counts."""
    model, tables = results.model, []
    findings: list[Finding] = []
    sentences = []
    names = [name for name in model.modalities if model.likelihood(name).is_of_counts]
    if not names:
        raise ValueError("No modality has a likelihood of counts.")
    is_beta_one = abs(model.beta_in_force - 1) < 0.01
    for name in names:
        table = _scores(results, name)
        nats = table["elbo"]
        own, linear, null = nats.tolist()
        findings += judge_scores(own, null, linear, name, is_beta_one)
        of = "" if name == COUNTS else f"{name}: "
        sentences.append(
            f"{of}{own:.1f} nats per cell; PCA {linear:.1f}, null model "
            f"{null:.1f} (higher is better)."
        )
        caption = f"{of}Scores of held-out counts, nats per cell"
        tables.append(Table(caption[0].upper() + caption[1:], table.rename_axis("model")))
    is_behind = any(finding.level != "note" for finding in findings)
    verdict = "as good as PCA" if findings else "better than the baselines"
    verdict = "behind a baseline" if is_behind else verdict
    return Section(verdict, " ".join(sentences), findings, tables)


def _scores(results: Results, name: str) -> pd.DataFrame:
    """Return the scores of the model, of PCA and of the null model."""
    model = results.model
    has = model.adapter.has(model.adata, name)
    cells = [results.held_out(), model.seen(model.adata)]
    held_out, seen = (
        results.some_of(some[has[some]], most)
        for some, most in zip(cells, (MOST_SCORED, MOST_FITTED), strict=True)
    )
    if len(held_out) < 2 or len(seen) < 2:
        raise ValueError(f"Too few cells have the modality {name!r}.")
    score = model.score_counts(indices=held_out, modalities=name)
    rows = {"this model": model.adapter.by_modality(score)[name].row()}
    train, test = (
        sparse.csr_array(model.raw_counts(some, modality=name)) for some in (seen, held_out)
    )
    n_components = min(N_COMPONENTS, min(train.shape) - 1)
    linear = LinearModel(train, n_components).score(test, seed=results.seed)
    rows[f"PCA, {n_components} components"] = linear.row()
    codes = np.asarray(model.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).ravel()
    batches = tuple(codes[some].astype(int) for some in (seen, held_out))
    null = null_score(train, test, (batches[0], batches[1]))
    rows[NULL] = {"elbo": null, "rate": 0.0, "distortion": -null}
    table = pd.DataFrame.from_dict(rows, orient="index")[["elbo", "rate", "distortion"]]
    table["gain over null"] = table["elbo"] - null
    return table


RULE = SectionRule(
    heading="Held-out counts",
    make=make,
    call="model.score_counts(), betavi.metrics.compare_likelihoods(model)",
    means="The score is the log-probability that a model gives to counts of cells that it has not seen. "
    "The null model knows the mean of each gene in each batch, and the total of each cell. PCA is a "
    "linear model of log counts. The gain over the null model is what the latent space "
    "and the shape of the likelihood contribute.",
    does_not_mean="A better score does not show that the model finds cell types or removes batches. "
    "Scores of different data sets cannot be compared.",
    needs="score_counts",
)
