"""Sections of the trust report say what their numbers allow, and no more."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.diagnostics import Cause
from betavi.metrics import LinearModel
from betavi.model.report import cells, counts, effects, latent
from betavi.model.report.dimensions import without_unused_labels
from betavi.model.report.results import Results
from betavi.model.report.section import counted
from tests.conftest import BRIEF
from tests.pl.test_pl import report

MANY = Cause("too_many_dimensions", "", "No change is needed.")


@pytest.mark.parametrize(
    ("status", "causes", "is_harmless"),
    [
        (["used", "used", "inactive"], [MANY], True),
        (["used", "used", "inactive"], [], True),
        # another cause can be removed
        (["used", "used", "inactive"], [MANY, Cause("beta_too_high", "", "Lower β.")], False),
        # most dimensions are unused
        (["used", "inactive", "inactive"], [MANY], False),
        # noise has most of the information
        (["noise", "used"], [MANY], False),
        (["used", "used"], [], False),
    ],
)
def test_unused_dimensions_are_harmless_if_they_are_few_and_carry_nothing(
    status, causes, is_harmless
):
    assert latent._is_harmless(replace(report(*status), causes=causes)) == is_harmless


def test_more_directions_than_dimensions_are_explained():
    assert "one dimension can represent several" in latent._directions(report("used"))
    assert "one dimension" not in latent._directions(report("used", signals=(9.0,)))


def test_labels_of_dimensions_without_signal_are_left_out():
    table = pd.DataFrame({
        "status": ["used", "unclear", "noise", "depth", "inactive"],
        "label": list("abcde"), "label_information": 0.7,
    })  # fmt: skip
    shown = without_unused_labels(table)
    assert shown["label"].tolist() == ["a", "b", None, None, None]
    assert shown["label_information"].notna().tolist() == [True, True, False, False, False]
    assert table["label"].tolist() == list("abcde")
    assert without_unused_labels(table[["status"]]).equals(table[["status"]])


def test_a_pair_without_significant_genes_is_not_called_additive():
    pairs = pd.DataFrame({"n_genes": [0, 3], "size": [8.9, 2.0], "kind": ["additive", "mixed"]}, ["A+B", "A+C"])  # fmt: skip
    genes = pd.DataFrame({"pair": ["A+B"], "gene": ["g"], "estimate": [9.0], "error": [8.0], "fdr": [0.9]})  # fmt: skip
    model = SimpleNamespace(interactions=lambda: (genes, pairs))
    section = effects.make_interactions(Results(model))
    assert section.tables[0].shown["kind"].tolist() == ["none found", "mixed"]
    assert section.tables[0].data["kind"].tolist() == ["additive", "mixed"]
    assert section.answer.startswith("Interactions: 1 of 2 pairs has significant genes")


@pytest.mark.parametrize(
    ("n_cells", "n_held_out", "outlying", "words"),
    [
        (1556, 311, [], "No single cell could be flagged, because 311 held-out cells are few for 1,556 cells"),
        (20, 311, [], "None of 20 cells is outlying"),
        (1556, 311, ["c1"], "1 of 1,556 cells is outlying, for example c1."),
        (1556, 311, ["c1", "c2"], "2 of 1,556 cells are outlying, for example c1, c2."),
    ],
)  # fmt: skip
def test_cells_are_not_called_ordinary_by_a_test_that_finds_none(
    monkeypatch, n_cells, n_held_out, outlying, words
):
    monkeypatch.setattr(cells, "latent_density", lambda *_: None)
    monkeypatch.setattr(cells, "calibration_cells", lambda *_: np.arange(n_held_out))
    table = pd.DataFrame({"p_value": np.linspace(0.003, 1, n_cells)})
    answer = cells._answer(SimpleNamespace(model=None), table, outlying, n_cells)
    assert answer.startswith(words)
    assert answer.endswith("of the p-values are below 0.05 (expected 5%).")
    assert ("smallest possible p-value is 0.003" in answer) == ("flagged" in answer)


def test_groups_with_more_low_p_values_are_named_first():
    p_values = np.r_[np.full(50, 0.01), np.linspace(0.01, 0.2, 50), np.linspace(0.01, 1, 100)]
    groups = {name: np.repeat(list("bac"), [50, 50, 100]) == name for name in "abc"}
    found = cells._least_described(p_values, groups)
    assert found == " Least well described: cells of b (100% below 0.05), a (22% below 0.05)."
    assert cells._least_described(p_values[100:], {"c": np.ones(100, dtype=bool)}) == ""


def test_scores_by_blocks_are_those_of_all_cells_with_a_standard_error():
    adata = simulate_counts(n_cells=200, n_genes=30, seed=0)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=3)
    model.train(**BRIEF, train_size=0.7)
    table, error = counts._scores(Results(model, show_progress=False), "X")
    held_out, seen = np.sort(model.validation_indices), model.seen(adata)
    linear = LinearModel(adata.X[seen], 10)
    assert table["elbo"].iloc[1] == pytest.approx(
        linear.score(adata.X[held_out]).row()["elbo"], abs=0.5
    )
    assert table["elbo"].iloc[0] == pytest.approx(
        model.score_counts(indices=held_out).row()["elbo"], abs=0.5
    )
    # beside the error from single cells, each block is a mean over few cells
    gaps = [
        model.score_counts(indices=[cell]).row()["elbo"]
        - linear.score(adata.X[[cell]]).row()["elbo"]
        for cell in held_out
    ]
    expected = np.std(gaps, ddof=1) / np.sqrt(len(gaps))
    assert expected / 2 < error < expected * 2


@pytest.mark.parametrize(
    ("own", "linear", "words"),
    [
        (-90, -95, "The model is better than PCA by 5.0 nats (standard error 1.0)."),
        (-95, -90, "PCA is better than the model by 5.0 nats (standard error 1.0)."),
        (-90, -91, "The difference from PCA is 1.0 nats, within two standard errors (1.0)."),
        (-90, -105, "PCA is below the null model: its normal noise does not fit these counts."),
    ],
)
def test_scores_are_compared_in_words(own, linear, words):
    text = counts._in_words(own, linear, -100, 1.0)
    assert text == f"Compared with the null model, the model is better by {own + 100:.1f} nats per cell. {words}"  # fmt: skip


def test_numbers_have_nouns_in_the_right_form():
    assert [counted(number, "cell") for number in (0, 1, 2000)] == ["0 cells", "1 cell", "2,000 cells"]  # fmt: skip
    assert counted(2, "axis", "axes") == "2 axes"
