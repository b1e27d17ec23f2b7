"""Section on held-out counts: the model beside PCA and beside a null model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from scvi import REGISTRY_KEYS

from betavi.data import COUNTS
from betavi.diagnostics.trust import judge_scores, null_score
from betavi.diagnostics.trust.counts import N_ERRORS
from betavi.metrics import LinearModel
from betavi.model.report.section import Section, SectionRule, Table

if TYPE_CHECKING:
    from betavi.diagnostics.trust import Finding
    from betavi.model.report.results import Results

MOST_SCORED, MOST_FITTED, N_COMPONENTS = 1000, 5000, 10
"""Largest number of held-out cells to score, of training cells to fit baselines to, and of components
of PCA. Not tuned."""

N_BLOCKS = 10
"""Number of blocks of held-out cells whose scores give the standard error."""

NULL = "null model: mean of each gene"


def make(results: Results) -> Section:
    """Score held-out counts of each modality that has counts."""
    model, tables = results.model, []
    findings: list[Finding] = []
    sentences, beaten, ties = [], [], []
    names = [name for name in model.modalities if model.likelihood(name).is_of_counts]
    if not names:
        raise ValueError("No modality has a likelihood of counts.")
    is_beta_one = abs(model.beta_in_force - 1) < 0.01
    scored = {name: _scores(results, name) for name in names}
    # a modality whose counts are not explained does not spoil the map of the others
    is_behind_null = [
        table.iloc[0]["elbo"] <= table.iloc[2]["elbo"] for table, _ in scored.values()
    ]
    makes_map = len(model.modalities) == 1 or all(is_behind_null)
    for name, (table, error) in scored.items():
        own, linear, null = table["elbo"].tolist()
        findings += judge_scores(
            own, null, linear, name, is_beta_one, error, results.is_falling, makes_map
        )
        beaten.append(linear < null)
        ties.append(abs(own - linear) <= N_ERRORS * error)
        of = "" if name == COUNTS else f"{name}: "
        sentences.append(
            f"{of}{own:.1f} nats per cell; PCA {linear:.1f}, null model {null:.1f} (higher is better). "
            f"{_in_words(own, linear, null, error)}"
        )
        caption = f"Scores of held-out counts{f' of {name}' if of else ''}, nats per cell"
        tables.append(Table(caption, table.rename_axis("model")))
    is_behind = any(finding.level != "note" for finding in findings)
    verdict = "better than the null model" if any(beaten) else "better than the baselines"
    verdict = "as good as PCA" if findings or any(ties) else verdict
    verdict = "behind a baseline" if is_behind else verdict
    return Section(verdict, " ".join(sentences), findings, tables)


def _in_words(own: float, linear: float, null: float, error: float) -> str:
    """Compare the scores in a sentence."""
    side = "better" if own > null else "worse"
    text = (
        f"Compared with the null model, the model is {side} by {abs(own - null):.1f} nats per cell."
    )
    if linear < null:
        return f"{text} PCA is below the null model: its normal noise does not fit these counts."
    if abs(own - linear) <= N_ERRORS * error:
        return f"{text} The difference from PCA is {own - linear:.1f} nats, within two standard errors ({error:.1f})."
    order = "The model is better than PCA" if own > linear else "PCA is better than the model"
    return f"{text} {order} by {abs(own - linear):.1f} nats (standard error {error:.1f})."


def _scores(results: Results, name: str) -> tuple[pd.DataFrame, float]:
    """Return the scores of the model, of PCA and of the null model, and an error.

    The error is the standard error of the difference between PCA and the model, from random blocks of cells.
    """
    model = results.model
    has = model.adapter.has(model.adata, name)
    cells = [results.held_out(), model.seen(model.adata)]
    held_out, seen = (
        results.some_of(some[has[some]], most)
        for some, most in zip(cells, (MOST_SCORED, MOST_FITTED), strict=True)
    )
    if len(held_out) < 2 or len(seen) < 2:
        raise ValueError(f"Too few cells have the modality {name!r}.")
    train, test = (
        sparse.csr_array(model.raw_counts(some, modality=name)) for some in (seen, held_out)
    )
    n_components = min(N_COMPONENTS, min(train.shape) - 1)
    linear = LinearModel(train, n_components)
    order = np.random.default_rng(results.seed).permutation(len(held_out))
    blocks = [np.sort(block) for block in np.array_split(order, min(N_BLOCKS, len(held_out)))]
    of_model, of_linear = [], []
    for block in blocks:
        score = model.score_counts(indices=held_out[block], modalities=name)
        of_model.append(model.adapter.by_modality(score)[name].row())
        of_linear.append(linear.score(test[block], seed=results.seed).row())
    rows = {
        "this model": _mean_of(of_model, blocks),
        f"PCA, {n_components} components": _mean_of(of_linear, blocks),
    }
    codes = np.asarray(model.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).ravel()
    batches = tuple(codes[some].astype(int) for some in (seen, held_out))
    null = null_score(train, test, (batches[0], batches[1]))
    rows[NULL] = {"elbo": null, "rate": 0.0, "distortion": -null}
    table = pd.DataFrame.from_dict(rows, orient="index")[["elbo", "rate", "distortion"]]
    table["gain over null"] = table["elbo"] - null
    gaps = [a["elbo"] - b["elbo"] for a, b in zip(of_model, of_linear, strict=True)]
    return table, float(np.std(gaps, ddof=1) / np.sqrt(len(gaps)))


def _mean_of(rows: list[dict[str, float]], blocks: list[np.ndarray]) -> dict[str, float]:
    """Return the mean over all cells of scores that are means over blocks of cells."""
    weights = [len(block) for block in blocks]
    return {
        name: float(np.average([row[name] for row in rows], weights=weights))
        for name in ("elbo", "rate", "distortion")
    }


RULE = SectionRule(
    heading="Held-out counts",
    make=make,
    call="model.score_counts(), betavi.metrics.compare_likelihoods(model)",
    means="The score is the log-probability that a model gives to counts of cells that it has not seen. "
    "The null model knows the mean of each gene in each batch, and the total of each cell. PCA is a "
    "linear model of log counts. The standard error is that of the difference, from blocks of cells. The gain over the null model is what the latent space "
    "and the shape of the likelihood contribute.",
    does_not_mean="A better score does not show that the model finds cell types or removes batches. "
    "Scores of different data sets cannot be compared.",
    needs="score_counts",
)
