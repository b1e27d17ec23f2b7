from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from scipy import sparse

from betavi import pl
from betavi.datasets import simulate_counts
from betavi.diagnostics import (
    BASELINES,
    CollapseReport,
    HeldOutMolecules,
    SignalSpectrum,
    report_denoising,
    thin,
)
from betavi.pl._style import PALETTE

mpl.use("Agg")


@pytest.fixture
def curve():
    table = pd.DataFrame({"beta": [0.5, 1, 2], "rate": [9, 5, 2], "distortion": [50, 51, 60]})
    return table.assign(elbo=-table["rate"] - table["distortion"])


def test_points_are_where_the_curve_is_and_named_by_beta(curve):
    ax = pl.rate_distortion(curve)
    assert ax.collections[0].get_offsets().tolist() == [[9, 50], [5, 51], [2, 60]]
    assert [text.get_text() for text in ax.texts] == ["0.5", "1", "2"]


def test_other_columns_and_axes(curve):
    _, ax = mpl.pyplot.subplots()
    assert pl.rate_distortion(curve, y="elbo", x="beta", ax=ax) is ax
    assert ax.get_xscale() == "log"
    assert ax.get_ylabel() == "ELBO at β = 1 (nats per cell)"
    # where an axis says which β it is, colour need not be explained
    assert (len(ax.figure.axes), len(pl.rate_distortion(curve).figure.axes)) == (1, 2)


def test_reference_points_are_named_by_their_components(curve):
    reference = pd.DataFrame({"n_components": [2, 7], "rate": [3, 6], "distortion": [70, 65]})
    ax = pl.rate_distortion(curve, reference=reference)
    assert {"2", "7"} <= {text.get_text() for text in ax.texts}


def test_a_missing_column_is_named(curve):
    with pytest.raises(KeyError, match=r"no column 'agreement_rare'. Columns: beta, rate"):
        pl.rate_distortion(curve, y="agreement_rare")
    with pytest.raises(ValueError, match="'agreement_rare' of `curve` has no values"):
        pl.rate_distortion(curve.assign(agreement_rare=np.nan), y="agreement_rare")


def report(*status, signals=(9.0, 3.0, 0.5), beta=2.0):
    n_latent = len(status)
    dimensions = pd.DataFrame(
        {"information": np.linspace(1, 0.001, n_latent), "kl": 0.4, "sensitivity": 0.5,
         "sensitivity_error": 0.1, "status": list(status)}
    )  # fmt: skip
    spectrum = SignalSpectrum(np.array(signals), np.ones(4), 100.0)
    return CollapseReport(
        dimensions, [], beta, spectrum, 3.0, 90.0, 2.0, 0.1, 0.1, {"X": 9.0}, 0.0, pd.DataFrame(),
        50, True,
    )  # fmt: skip


def test_a_report_is_drawn_with_every_dimension_and_direction():
    information, sensitivity, theory = pl.collapse(report("used", "used", "noise", "inactive"))
    assert len(information.patches) == len(sensitivity.patches) == 4
    assert information.get_title() == "verdict: partial"
    labels = [text.get_text() for text in information.get_legend().get_texts()]
    assert labels == ["used (2)", "noise (1)", "inactive (1)", "KL"]
    # told apart without colour
    assert len({bar.get_hatch() for bar in information.patches}) == 3
    points = [part.get_offsets()[:, 1].tolist() for part in theory.collections]
    assert points == [[10.0, 4.0], [1.5]]
    assert "active in theory: 2, used: 2" in theory.get_title()


@pytest.mark.parametrize("signals", [(), (0.1,)])
def test_a_collapsed_report_is_drawn_too(signals):
    axes = pl.collapse(report("inactive", "inactive", signals=signals))
    axes[0].figure.canvas.draw()
    assert axes[0].get_title() == "verdict: collapsed"


def test_the_history_of_a_latent_space_is_drawn():
    names = ("mutual_information", "active_dimensions", "beta")
    history = {name: pd.DataFrame({name: [1.0, 2.0, 3.0]}) for name in names}
    ax = pl.collapse_history(history)
    assert [line.get_linestyle() for line in ax.get_lines()] == ["-", "--"]
    with pytest.raises(KeyError, match="collapse_guard=True"):
        pl.collapse_history({"beta": history["beta"]})


@pytest.mark.parametrize("n_features", [3, 100])
def test_features_are_drawn_best_first_and_named_if_they_fit(n_features):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"pearson": rng.uniform(-0.2, 1, n_features), "coverage": rng.uniform(size=n_features)},
        index=[f"protein_{number}" for number in range(n_features)],
    )
    table["is_predictable"] = table["pearson"] > 0.2
    quality, coverage = pl.translation(table)
    widths = {bar.get_y() + bar.get_height() / 2: bar.get_width() for bar in quality.patches}
    drawn = [widths[rank] for rank in sorted(widths)]
    assert drawn == sorted(table["pearson"], reverse=True)
    best = table.sort_values("pearson", ascending=False)
    np.testing.assert_array_equal(coverage.get_lines()[0].get_xdata(), best["coverage"])
    names = [text.get_text() for text in quality.get_yticklabels()]
    assert (names == list(best.index)) == (n_features == 3)
    assert quality.get_ylim()[0] > quality.get_ylim()[1]


def test_a_table_of_something_else_is_refused():
    with pytest.raises(KeyError, match="no column 'coverage'"):
        pl.translation(pd.DataFrame({"pearson": [1.0], "is_predictable": [True]}))


@pytest.fixture
def judged():
    rates = np.random.default_rng(0).gamma(1.0, 2.0, size=(2, 30))[np.arange(200) % 2]
    held_out = HeldOutMolecules(thin(np.random.default_rng(1).poisson(rates), 0.3))
    kept = held_out.thinned.kept
    scores = {name: held_out.score(rows(kept, 0)) for name, rows in BASELINES.items()}
    scores["posterior"] = held_out.score([0.7 * rates])
    return report_denoising(held_out, scores, ["posterior"], [f"gene_{i}" for i in range(30)])


def test_methods_and_genes_are_drawn(judged):
    methods, genes = pl.denoising(judged)
    # the best on top
    assert [text.get_text() for text in methods.get_yticklabels()][::-1] == list(
        judged.methods.index
    )
    widths = [bar.get_width() for bar in methods.patches][::-1]
    np.testing.assert_allclose(widths, judged.methods["explained"].clip(lower=-1))
    drawn = {c.get_label(): len(c.get_offsets()) for c in genes.collections}
    trusted = int(judged.genes["trusted"].sum())
    assert drawn == {
        "better than the gene mean": trusted,
        "not significantly better": 30 - trusted,
    }
    _, axes = mpl.pyplot.subplots(1, 2)
    assert pl.denoising(judged, axes)[0] is axes[0]
    with pytest.raises(TypeError, match=r"reports\['rna'\]"):
        pl.denoising({"rna": judged})


def test_pairs_of_genes_are_drawn_before_and_after():
    adata = simulate_counts(n_cells=50, n_genes=5)
    counts = adata.X.toarray()
    adata.layers["denoised"] = sparse.csr_matrix(counts + 0.5)
    genes = list(adata.var_names[[0, 3, 1]])
    axes = pl.before_and_after(adata, genes, groupby="cell_type")
    assert axes.shape == (2, 2)
    points = np.concatenate([c.get_offsets() for c in axes[1, 1].collections])
    expected = np.log1p(counts[:, [3, 1]] + 0.5)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(expected, axis=0), rtol=1e-6)
    assert axes[1, 0].get_xlabel() == f"{genes[0]}, log(1 + denoised)"
    assert [to_hex(c.get_facecolor()[0]) for c in axes[0, 0].collections[::2]] == list(
        PALETTE[: adata.obs["cell_type"].nunique()]
    )
    # the colours that scanpy gave, unless groups have changed since
    known = [f"#0000{number:02x}" for number in range(adata.obs["cell_type"].nunique())]
    for colors, first in ((known, known[0]), (known[:1], PALETTE[0])):
        adata.uns["cell_type_colors"] = colors
        one = pl.before_and_after(adata, genes, groupby="cell_type")[0, 0].collections[0]
        assert to_hex(one.get_facecolor()[0]) == first
    # counts that denoise() has moved
    adata.layers["counts"], adata.X = adata.X, counts * 0
    adata.uns["betavi"] = {"counts_moved_to": "counts"}
    points = pl.before_and_after(adata, genes)[0, 0].collections[0].get_offsets()
    assert points.max() > 0.5
    assert (
        pl.before_and_after(adata, genes, layer=None)[1, 0].collections[0].get_offsets().max() == 0
    )
    adata.obsm["some"] = pd.DataFrame(np.ones((50, 3)), index=adata.obs_names, columns=genes)
    assert pl.before_and_after(adata, genes, "some")[1, 0].collections[0].get_offsets().min() > 0.6
    for kwargs, error, words in [
        ({"genes": ["gene_0"]}, ValueError, "two or more"),
        ({"genes": "gene_0"}, ValueError, "two or more"),
        ({"genes": ["gene_0", "gene_x"]}, KeyError, "no gene 'gene_x'"),
        ({"genes": genes, "layer": "d"}, KeyError, "no layer 'd'"),
        ({"genes": genes, "groupby": "x"}, KeyError, "x"),
    ]:
        with pytest.raises(error, match=words):
            pl.before_and_after(adata, **kwargs)
