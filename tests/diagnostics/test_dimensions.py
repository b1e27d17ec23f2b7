"""Effects of dimensions on genes, and their relations to labels and covariates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mutual_info_score

from betavi.diagnostics import (
    DecodedCells,
    EffectSums,
    GeneEffects,
    gene_tables,
    label_information,
    variance_explained,
)


def decoded(log_rates, is_share):
    rates = np.exp(log_rates)
    scale = rates / rates.sum(axis=1, keepdims=True) if is_share else rates
    return DecodedCells(scale, 1000 * scale)


@pytest.mark.parametrize("is_share", [True, False])
def test_an_added_step_has_its_fold_changes_and_no_deviation(is_share):
    rng = np.random.default_rng(0)
    start, step = rng.normal(size=(60, 8)), rng.normal(size=8)
    sums = EffectSums(8, is_share)
    for part in (slice(0, 25), slice(25, 60)):
        sums.add(decoded(start[part], is_share), decoded(start[part] + step, is_share))
    before, after = (decoded(x, is_share).scale for x in (start, start + step))
    changes = np.log2(after / before)
    found = sums.effects()
    np.testing.assert_allclose(found.log2_fold_change, changes.mean(axis=0))
    np.testing.assert_allclose(found.sd_between_cells, 0, atol=1e-6)
    # the sum of the shares stays 1, which shifts all genes of a cell together
    spread = changes.std(axis=0, ddof=1) / np.sqrt(60)
    np.testing.assert_allclose(found.standard_error, spread, atol=1e-7)
    if not is_share:
        np.testing.assert_allclose(found.log2_fold_change, step / np.log(2))


def test_an_effect_that_depends_on_the_cell_has_a_deviation():
    rng = np.random.default_rng(0)
    start, step = rng.normal(size=(500, 3)), np.array([0.0, 1.0, 1.0])
    own = step + np.outer(rng.normal(size=500), [0.0, 0.5, 0.0])
    sums = EffectSums(3, is_share=False)
    sums.add(decoded(start, False), decoded(start + own, False))
    np.testing.assert_allclose(
        sums.effects().sd_between_cells, [0, 0.5 / np.log(2), 0], rtol=0.1, atol=1e-6
    )


def test_the_standard_error_is_that_of_repeated_samples():
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(300):
        change = rng.normal(1.0, 0.7, size=(40, 1))
        sums = EffectSums(1, is_share=False)
        sums.add(decoded(np.zeros((40, 1)), False), decoded(change, False))
        means.append(sums.effects().log2_fold_change)
        errors.append(sums.effects().standard_error)
    np.testing.assert_allclose(np.std(means), np.mean(errors), rtol=0.1)


def effects(*changes):
    return GeneEffects(*np.array([changes] * 4, dtype=float))


def test_genes_are_listed_where_they_rise_and_ranked():
    names = {"rna": pd.Index(["a", "b", "c"]), "adt": pd.Index(["p"])}
    given = {
        (1, "+", "rna"): effects(1, -2, 3),
        (1, "+", "adt"): effects(0.5),
        (1, "-", "rna"): effects(-1, 2, -3),
        (1, "-", "adt"): effects(-0.5),
    }
    genes, changes = gene_tables(given, names, 2)
    listed = genes.groupby(["sign", "modality"])["gene"].agg(list).to_dict()
    assert listed == {("+", "rna"): ["c", "a"], ("+", "adt"): ["p"], ("-", "rna"): ["b"]}
    assert genes["rank"].tolist() == [1, 2, 1, 1]
    assert changes.loc[("rna", "b")].to_dict() == {(1, "+"): -2, (1, "-"): 2}
    assert len(changes) == 4
    every, _ = gene_tables(given, names, None)
    assert len(every) == 8
    assert every.loc[every["gene"] == "b", "rank"].tolist() == [3, 1]


def test_no_effects_give_empty_tables():
    genes, changes = gene_tables({}, {"X": pd.Index(["a"])}, 20)
    assert len(genes) == len(changes) == changes.shape[1] == 0
    assert list(genes)[:4] == ["dimension", "sign", "modality", "gene"]


def test_information_about_labels_is_that_of_bins():
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b", "c"])[rng.integers(3, size=900)]
    values = np.column_stack(
        [rng.normal(size=900) + 5 * (labels == "b"), rng.normal(size=900), np.zeros(900)]
    )
    found = label_information(values, labels)
    bins = pd.cut(values[:, 0], 10, labels=False)
    for label in "abc":
        is_in = labels == label
        share = is_in.mean()
        entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
        expected = mutual_info_score(is_in, bins) / entropy
        np.testing.assert_allclose(found.loc[0, label], expected, atol=0.01)
    assert found.loc[0, "b"] > 0.8
    assert found.loc[1].max() < 0.05
    assert found.loc[2].max() == 0


def test_variance_explained_is_a_share():
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=3000)
    values = np.column_stack(
        [codes == 1, codes + rng.normal(size=3000), rng.normal(size=3000), np.ones(3000)]
    )
    found = variance_explained(values, codes, is_code=True)
    # the variance of three codes is 2/3, that of the noise is 1
    np.testing.assert_allclose(found, [1, 0.4, 0, 0], atol=0.03)
    numbers = variance_explained(values, codes.astype(float), is_code=False)
    np.testing.assert_allclose(numbers[1], np.corrcoef(codes, values[:, 1])[0, 1] ** 2)
    assert variance_explained(values, np.zeros(3000), is_code=False).tolist() == [0, 0, 0, 0]
