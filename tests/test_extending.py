"""Members from outside the package, those of docs/extending.md, keep every contract as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_multiome
from betavi.diagnostics import CAUSES, causes_of
from betavi.likelihoods import LIKELIHOODS
from betavi.nn import FUSIONS
from betavi.objective import SCHEDULES
from tests.conftest import BRIEF, getters
from tests.contracts import check_cause, check_fusion, check_likelihood, check_schedule
from tests.contracts.cause import EXAMPLES, evidence

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture
def defined():
    """What the page defines, without the examples that use it."""
    names = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        if re.search(r"^(class|def) ", example, flags=re.MULTILINE):
            exec(example, names)
    return names


def test_a_likelihood(defined, monkeypatch):
    monkeypatch.setitem(LIKELIHOODS, "geometric", defined["GeometricLikelihood"])
    check_likelihood(LIKELIHOODS["geometric"])


def test_a_fusion_rule(defined, monkeypatch):
    monkeypatch.setitem(FUSIONS, "geometric_mean", defined["GeometricMean"])
    check_fusion(FUSIONS["geometric_mean"])


def test_a_schedule(defined, monkeypatch):
    monkeypatch.setitem(SCHEDULES, "square_root", defined["square_root"])
    check_schedule(SCHEDULES["square_root"])


def test_a_cause(defined, monkeypatch):
    monkeypatch.setitem(CAUSES, "shallow_cells", defined["shallow_cells"])
    check_cause("shallow_cells")
    for first, changes in EXAMPLES:
        names = [cause.name for cause in causes_of(evidence(**changes))]
        assert (names[0], names[-1]) == (first, "shallow_cells")


@pytest.mark.parametrize("missing", [None, {"adt": 0.4}])
def test_an_ability(defined, monkeypatch, missing):
    ability = defined["expected_totals"]
    monkeypatch.setattr(BetaVI, "expected_totals", ability, raising=False)
    monkeypatch.setattr(JointVI, "expected_totals", ability, raising=False)
    mdata = simulate_multiome(n_cells=60, n_genes=20, seed=0, missing=missing or {})
    JointVI.setup_mudata(mdata, {"rna": "nb", "adt": "nb_mixture"})
    BetaVI.setup_anndata(adata := mdata["rna"].copy())
    joint, single = JointVI(mdata, n_latent=3), BetaVI(adata, n_latent=3, gene_likelihood="nb")
    for cls, model in ((JointVI, joint), (BetaVI, single)):
        assert "expected_totals" in getters(cls)
        with pytest.raises(RuntimeError, match="not trained"):
            model.expected_totals()
        model.train(**BRIEF)
    # at a cell's own size, what a softmax decodes sums to the cell's total
    totals = np.asarray(adata.X.sum(axis=1)).ravel()
    np.testing.assert_allclose(single.expected_totals(), totals, rtol=1e-4)
    rna = joint.expected_totals()["rna"][joint.adapter.has(mdata, "rna")]
    np.testing.assert_allclose(rna, totals, rtol=1e-4)
    some = single.expected_totals(indices=adata.obs_names[[3, 1]])
    np.testing.assert_allclose(some, totals[[3, 1]], rtol=1e-4)
