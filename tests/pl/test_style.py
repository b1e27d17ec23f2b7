"""What all pictures have in common."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from betavi import pl
from betavi.datasets import simulate_counts
from betavi.diagnostics import ExplainedDimensions, GeneEffects, fit_density, gene_tables
from betavi.metrics import mean_curves
from betavi.pl._style import PALETTE, colours_of, styled
from betavi.pl.interactions import MINUS
from tests.pl.test_pl import curve, judged, report  # noqa: F401 - fixtures
from tests.pl.test_pl_effects import prediction
from tests.pl.test_pl_map import latent, path  # noqa: F401 - fixtures

mpl.use("Agg")


INTERACTIONS = pd.DataFrame(
    {"pair": "A+B", "gene": ["g0", "g1"], "shrunken": [1.0, -1.0], "fdr": [0.01, 0.5]}
).assign(p_value=[0.001, 0.4], estimate=[1.1, -1.2], error=0.3)


def explained(*statuses):
    """Return explained dimensions with these statuses; the used ones change two genes."""
    effects = {
        (k, sign, "X"): GeneEffects(*np.array([[step, -step / 2]] * 4))
        for k, status in enumerate(statuses)
        if status == "used"
        for sign, step in (("+", 1.0 + k), ("-", -1.0))
    }
    table = pd.DataFrame({"status": statuses, "distortion_increase": range(len(statuses))})
    table = table.assign(distortion_increase_error=0.1, label="type_0", label_information=0.5)
    tables = gene_tables(effects, {"X": pd.Index(["g0", "g1"])}, 2)
    return ExplainedDimensions(table, *tables, n_cells=100, is_held_out=True)


@pytest.fixture
def drawn(request):
    """Return what each picture draws by a name, and the name of its argument for axes."""
    get = request.getfixturevalue
    history = {name: pd.DataFrame({name: [1.0, 2.0]}) for name in
               ("mutual_information", "active_dimensions", "beta")}  # fmt: skip
    adata = simulate_counts(n_cells=50, n_genes=5)
    adata.layers["denoised"] = adata.X.toarray()
    table = pd.DataFrame({"pearson": [0.9], "coverage": [0.9], "is_predictable": [True]})
    return {
        "rate_distortion": ([get("curve")], 1),
        "collapse": ([report("used", "inactive")], 3),
        "collapse_history": ([history], 1),
        "training_curves": ([{"elbo_train": history["beta"]} | history], 1),
        "translation": ([table], 2),
        "denoising": ([get("judged")], 2),
        "before_and_after": ([adata, list(adata.var_names[:2])], (2, 1)),
        "latent_map": ([fit_density(get("latent")), get("latent")], 1),
        "latent_path": ([get("path")], 2),
        "mean_curves": ([mean_curves(simulate_counts(n_cells=50, n_genes=50))], 2),
        "support": ([pd.DataFrame({"p_value": [0.1, 0.9]})], 1),
        "predicted_change": ([prediction([0, 1, 2, -1]), [0.1, 1.1, 0.5, -1.1]], 1),
        "dimensions": ([explained("used", "inactive", "used")], 2),
        "images": ([{"truth": np.arange(192.0).reshape(3, 1, 8, 8), "flat": np.ones((3, 1, 8, 8))}],
                   (4, 2)),
        "interactions": ([INTERACTIONS], 1),
        "dose_curves": ([{dose: prediction([0, 1, dose, -1]) for dose in (1.0, 10.0)}], 1),
    }  # fmt: skip


@pytest.mark.parametrize("name", pl.__all__)
def test_a_picture_is_drawn_where_asked_shown_and_saved(name, drawn, tmp_path, monkeypatch):
    arguments, shape = drawn[name]
    before = dict(mpl.rcParams)
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    draw = getattr(pl, name)
    axes = np.ravel(draw(*arguments))
    assert not shown
    # lines without a box around them, in any new figure
    assert not axes[0].spines.top.get_visible()
    draw(*arguments, show=True, save=tmp_path / "figure.png")
    assert shown
    assert plt.imread(tmp_path / "figure.png").std() > 0
    if shape == 1:
        own = plt.subplots()[1]
        assert draw(*arguments, ax=own) is own
    else:
        own = np.empty(shape, dtype=object)
        own.flat = plt.subplots(1, own.size)[1]
        assert np.ravel(draw(*arguments, axes=own))[0] is own.flat[0]
    assert dict(mpl.rcParams) == before
    plt.close("all")


READ_NO_RESULT = {
    "before_and_after", "collapse_history", "dose_curves", "images", "training_curves",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({*pl.__all__} - READ_NO_RESULT))
def test_what_is_no_result_is_refused_with_what_returns_one(name):
    two = {"latent_map": np.zeros((3, 2)), "predicted_change": [0.1]}
    arguments = [object(), two[name]] if name in two else [object()]
    with pytest.raises(TypeError, match=r"is of type object. Pass the result of .*\(\)"):
        getattr(pl, name)(*arguments)


def test_dimensions_without_any_in_use_are_drawn():
    axes = pl.dimensions(explained("inactive", "noise"))
    assert "none is used" in axes[1].texts[0].get_text()
    assert [text.get_text() for text in axes[0].get_yticklabels()] == [
        "1  (noise, type_0: 0.50)", "0  (inactive, type_0: 0.50)",
    ]  # fmt: skip


def test_the_top_genes_of_dimensions_are_in_their_order():
    axes = pl.dimensions(explained("used", "inactive", "used"), n_genes=1)
    assert [text.get_text() for text in axes[1].get_xticklabels()] == [
        "2+", f"2{MINUS}", "0+", f"0{MINUS}",
    ]  # fmt: skip
    assert [text.get_text() for text in axes[1].get_yticklabels()] == ["g0", "g1"]
    np.testing.assert_allclose(
        axes[1].images[0].get_array(), [[3, -1, 1, -1], [-1.5, 0.5, -0.5, 0.5]]
    )


def test_what_else_is_set_while_drawing_stays():
    """A notebook becomes interactive when its first figure is made, which may be one of these."""

    @styled
    def draw():
        mpl.rcParams["interactive"] = True
        raise RuntimeError

    before = dict(mpl.rcParams)
    with pytest.raises(RuntimeError):
        draw()
    assert mpl.rcParams["interactive"]
    mpl.rcParams["interactive"] = before["interactive"]
    assert dict(mpl.rcParams) == before


def test_colours_differ_and_repeat_beyond_twenty():
    assert len(set(colours_of(range(len(PALETTE))).values())) == len(PALETTE)
    assert len(set(colours_of(range(20)).values())) == 20
    assert colours_of(range(21))[20] == colours_of(range(20))[0]
