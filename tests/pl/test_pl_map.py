from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from betavi import pl
from betavi.diagnostics import fit_density, genes_on_path
from betavi.pl._style import PALETTE

mpl.use("Agg")


@pytest.fixture
def latent():
    rng = np.random.default_rng(0)
    return rng.normal(size=(400, 5)) * (5, 3, 1, 0.5, 0.1) + 20


@pytest.fixture
def path():
    """Ten steps of four genes: one goes up late, one down early, one there and back, one stays."""
    at = np.linspace(0, 1, 10)
    expression = np.column_stack(
        [1 + 50 * (at > 0.7), 51 - 50 * (at > 0.2), 1 + 50 * (np.abs(at - 0.5) < 0.2), 20 + 0 * at]
    )
    names = pd.Index(["late", "early", "middle", "still"])
    obs = pd.DataFrame(
        {"step": at, "p_value": np.linspace(0.9, 0.01, 10)}, index=map(str, range(10))
    )
    var = genes_on_path(expression, 0.01 * expression, names)
    adata = AnnData(expression, obs=obs, var=var, uns={"betavi": {"path": "straight"}})
    adata.obsm["z"] = np.linspace(np.full(5, 15.0), np.full(5, 25.0), 10)
    return adata


def test_cells_are_where_their_principal_components_are(latent):
    ax = pl.latent_map(fit_density(latent), latent)
    drawn = ax.collections[-1].get_offsets()
    centred = latent - latent.mean(axis=0)
    scores = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    order = np.random.default_rng(0).permutation(len(latent))
    np.testing.assert_allclose(np.abs(drawn), np.abs(scores[order]), atol=1e-8)
    share = (scores.var(axis=0).sum() / latent.var(axis=0).sum()).round(2)
    assert ax.get_title().startswith(f"{share:.0%} of the variance of positions;")


def test_groups_paths_holes_and_the_archetype_are_named(latent, path):
    holes = AnnData(np.ones((2, 1)), obsm={"z": latent[:2]})
    archetype = AnnData(np.ones((3, 1)), obsm={"z": latent[:3]})
    color = np.where(latent[:, 0] > 20, "B", "A")
    _, ax = mpl.pyplot.subplots()
    density = fit_density(latent)
    out = pl.latent_map(density, latent, color, [path, path], holes, archetype, ax=ax)
    assert out is ax
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["A", "B", "path: straight", "path: straight", "archetype", "hole"]
    assert [len(c.get_offsets()) for c in ax.collections[-2:]] == [1, 2]
    assert len(pl.latent_map(density, latent, path=path).lines) == 1
    nothing = pl.latent_map(density, latent, holes=holes[:0])
    assert nothing.get_legend() is None


@pytest.mark.parametrize("n_latent", [1, 2])
def test_in_few_dimensions(n_latent):
    latent = np.random.default_rng(0).normal(size=(100, n_latent))
    assert pl.latent_map(fit_density(latent), latent).get_title().startswith("100%")


def test_what_is_no_map_is_refused(latent):
    density = fit_density(latent)
    with pytest.raises(ValueError, match=r"\(n_cells, 5\)"):
        pl.latent_map(density, latent[:, :2])
    with pytest.raises(ValueError, match="`color` has 3 values for 400 cells"):
        pl.latent_map(density, latent, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"adata.obs\['cluster'\]"):
        pl.latent_map(fit_density(latent), latent, "cluster")
    with pytest.raises(TypeError, match="latent_density"):
        pl.latent_map(latent, latent)


def test_numbers_are_a_scale_and_few_of_them_groups(latent):
    density = fit_density(latent)
    scale = pl.latent_map(density, latent, np.linspace(0, 1, 400))
    assert scale.get_legend() is None
    assert len(scale.figure.axes) == 2
    codes = pl.latent_map(density, latent, np.arange(400) % 3)
    assert [text.get_text() for text in codes.get_legend().get_texts()] == ["0", "1", "2"]


def test_a_path_shows_switches_in_their_order(path):
    support, heat = pl.latent_path(path, genes=4)
    assert [text.get_text() for text in heat.get_yticklabels()] == [
        "early",
        "middle",
        "still",
        "late",
    ]
    np.testing.assert_allclose(support.lines[0].get_ydata(), path.obs["p_value"])
    image = heat.images[0].get_array()
    assert (image.min(), image.max()) == (0, 1)
    # those that switch are marked where they do
    x, y = heat.lines[0].get_data()
    assert sorted(y) == [0, 3]
    assert x[list(y).index(3)] == pytest.approx(path.var.loc["late", "switch_at"])
    _, axes = mpl.pyplot.subplots(2, 1)
    assert list(pl.latent_path(path, ["still"], axes)) == list(axes)


def test_what_is_no_path_is_refused(path):
    with pytest.raises(KeyError, match="no gene 'lat'"):
        pl.latent_path(path, ["lat"])
    with pytest.raises(KeyError, match=r"no 'switch_at'.*interpolate"):
        pl.latent_path(AnnData(np.ones((2, 2))))


def test_support_is_a_line_for_each_group():
    table = pd.DataFrame({"p_value": [0.4, 0.2, 0.9, 0.01]}, index=list("wxyz"))
    ax = pl.support(table, ["seen", "seen", "seen", "new"])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["calibrated", "new (1)", "seen (3)"]
    np.testing.assert_allclose(ax.lines[2].get_xdata(), [0.2, 0.4, 0.9])
    np.testing.assert_allclose(ax.lines[2].get_ydata(), [1 / 3, 2 / 3, 1])
    assert pl.support(table).lines[1].get_label() == "cells (4)"
    # cells without counts have no p-value, and names may come twice
    twice = pd.concat([table, pd.DataFrame({"p_value": [np.nan]}, index=["w"])])
    assert pl.support(twice).lines[1].get_label() == "cells (4)"
    with pytest.raises(KeyError, match="p_value"):
        pl.support(table.rename(columns={"p_value": "p"}))
    with pytest.raises(ValueError, match="`groups` has 1 values for 4 cells"):
        pl.support(table, ["seen"])


def test_positions_after_a_softmax_are_not_those_of_the_density(latent):
    after = np.exp(latent) / np.exp(latent).sum(axis=1, keepdims=True)
    with pytest.raises(ValueError, match="before the softmax"):
        pl.latent_map(fit_density(latent), after)


def test_a_path_of_several_assays_is_drawn_one_at_a_time(path):
    both = mudata.MuData({"rna": path, "adt": path.copy()})
    with pytest.raises(TypeError, match=r"path\['rna'\]"):
        pl.latent_path(both)


def test_groups_have_the_colours_they_are_given(latent):
    density = fit_density(latent)
    order = ["b", "a", "never"]
    color = pd.Series(pd.Categorical(["a", "b"] * (len(latent) // 2), order))

    def drawn(**kwargs):
        handles, labels = pl.latent_map(
            density, latent, color, **kwargs
        ).get_legend_handles_labels()
        return {
            label: to_hex(one.get_facecolor()[0])
            for label, one in zip(labels, handles, strict=True)
        }

    # the order of categories, as scanpy has it, and not of letters
    assert drawn(palette=["#ff0000", "#00ff00", "#0000ff"])["b"] == "#ff0000"
    assert drawn(palette={"a": "#ff0000", "b": "#00ff00"})["a"] == "#ff0000"
    assert drawn()["b"] == PALETTE[0]
    assert set(drawn()) == {"a", "b"}
    assert drawn(palette="viridis")["b"] == to_hex(plt.get_cmap("viridis")(0.0))
    with pytest.raises(ValueError, match=r"no colour for \['b'\]"):
        drawn(palette={"a": "r"})
    with pytest.raises(ValueError, match="1 colours for 3 groups"):
        drawn(palette=["r"])
