"""Draws the pictures of these pages, of blood cells: ``make figures``, three minutes on two cores.

What is drawn is printed, so that captions can be checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
import scvi

import betavi
from betavi.pl._style import PALETTE, USED
from docs import figures_of_effects, figures_of_use
from docs._drawing import QUIET, begin, save, trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOO_HIGH = 30.0
FROM, NEAR, TO = "CD4 T", "CD8 T", "Mono"
PROTEIN = "cd8a"


def likelihoods(adata: sc.AnnData) -> None:
    """Draw scores of likelihoods, and the zeros that they expect."""
    scvi.settings.seed = 0
    betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    table = betavi.metrics.compare_likelihoods(
        betavi.BetaVI(adata), max_epochs=30, enable_progress_bar=False
    )
    print(table.round(3).to_string())
    scored = table[np.isfinite(table["elbo"])].sort_values("elbo")
    _, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    left.barh(scored.index, scored["elbo"].max() - scored["elbo"], color=USED)
    left.set_xlabel("nats per held-out cell behind the best")
    zeros = table["zero_fraction"].dropna().drop("observed")[::-1]
    right.barh(zeros.index, zeros, color=USED)
    right.axvline(table.loc["observed", "zero_fraction"], color="k", ls="--", lw=1)
    right.set(xlabel="share of zeros expected (dashed: observed)", xlim=(0, 1))
    save("likelihoods", left)


def everything_of_rna(adata: sc.AnnData, panels: np.ndarray) -> None:
    """Draw the pictures of one assay, and five panels of the first figure."""
    healthy, collapsed = trained(adata, 60), trained(adata, 40, beta=TOO_HIGH)
    reports = [model.diagnose(**QUIET) for model in (healthy, collapsed)]
    figure, axes = plt.subplots(2, 3, figsize=(9.5, 5.6), layout="constrained")
    for row, report in zip(axes, reports, strict=True):
        betavi.pl.collapse(report, row)
    save("collapse", figure.axes)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for ax, model in zip(axes, (healthy, collapsed), strict=True):
        betavi.pl.collapse_history(model.history, ax)
        ax.set_title(f"β = {model.module.settled_beta:g}")
    save("history", axes)
    for ax, model, report in zip(panels[0, :2], (healthy, collapsed), reports, strict=True):
        umap(adata, model, ax)
        used = f"{report.active_dimensions} of {len(report.dimensions)} dimensions used"
        ax.set_title(f"β = {report.beta:g}: {used}", fontsize=10)
    information(panels[0, 2], reports)

    every = trained(adata, 80, beta=(0.1, 30.0))
    curve = every.rate_distortion(indices=every.validation_indices)
    print(curve.round(2).to_string(index=False))
    save("rate_distortion", betavi.pl.rate_distortion(curve))
    betavi.pl.rate_distortion(curve, ax=panels[1, 0])
    panels[1, 0].set_title("every β, from one training", fontsize=10)
    the_map(healthy, adata, panels[1, 1])
    possible(adata)

    trust = healthy.cross_validate_denoising(max_epochs=40, **QUIET)
    print(trust)
    save("denoising", betavi.pl.denoising(trust))


def umap(adata: sc.AnnData, model: betavi.BetaVI, ax: Axes) -> None:
    adata.obsm["X_now"] = model.get_latent_representation()
    sc.pp.neighbors(adata, use_rep="X_now")
    sc.tl.umap(adata)
    groups = adata.obs["celltype"].cat.categories
    palette = dict(zip(groups, PALETTE, strict=True))
    where = "on data" if ax.get_subplotspec().colspan.start == 0 else "none"
    sc.pl.umap(
        adata, color="celltype", palette=palette, ax=ax, show=False, legend_loc=where,
        legend_fontsize=8, legend_fontoutline=1.5,
    )  # fmt: skip


def information(ax: Axes, reports: list[Any]) -> None:
    """Draw the information in each dimension of both models."""
    for report, style in zip(reports, ({"color": USED}, {"color": PALETTE[5]}), strict=True):
        nats = report.dimensions["information"].sort_values(ascending=False)
        label = f"β = {report.beta:g}: {report.verdict}"
        ax.plot(np.arange(1, len(nats) + 1), nats.clip(lower=1e-3), "o-", label=label, **style)
    ax.set(xlabel="latent dimension", ylabel="information, nats per cell", yscale="log")
    ax.set_title("information per dimension", fontsize=10)
    ax.legend()


def the_map(model: betavi.BetaVI, adata: sc.AnnData, panel: Axes) -> None:
    """Draw the map, and p-values along two paths."""
    types = adata.obs["celltype"]
    ends = [(types == name).to_numpy() for name in (FROM, TO)]
    paths = {path: model.interpolate(*ends, path=path, **QUIET) for path in ("density", "straight")}
    axes = betavi.pl.latent_map(
        model.latent_density(**QUIET), model.get_latent_representation(), types,
        list(paths.values()), model.find_holes(**QUIET), model.archetype(**QUIET),
    )  # fmt: skip
    save("map", axes)
    save("path", betavi.pl.latent_path(paths["density"], 25))
    near = model.interpolate(ends[0], (types == NEAR).to_numpy(), path="density", **QUIET)
    for route, style, to in ((near, "-", NEAR), (paths["density"], "--", TO)):
        panel.plot(route.obs["step"], route.obs["p_value"], style, color=USED, label=f"to {to}")
    print({to: route.obs["p_value"].min() for to, route in ((NEAR, near), (TO, paths["density"]))})
    panel.axhline(0.05, color=PALETTE[5], ls=":", lw=1)
    panel.set(
        xlabel=f"share of the path from {FROM}", ylabel="p-value of a cell there", ylim=(0, 1)
    )
    panel.set_title("paths through cells and through a gap", fontsize=10)
    panel.legend()


def possible(adata: sc.AnnData) -> None:
    """Draw p-values of unseen cells and of cells with shuffled genes, and realism of new cells."""
    # a fifth is ranked, another fifth are the ranks
    model = trained(adata, 100, train_size=0.6, validation_size=0.2)
    seen, unseen = adata[model.train_indices], adata[model.test_indices].copy()
    shuffled = unseen.copy()
    rng = np.random.default_rng(0)
    shuffled.X = np.array([rng.permutation(row) for row in unseen.X.toarray()])
    parts = {"unseen": unseen, "genes shuffled": shuffled}
    table = pd.concat({name: model.support(cells, **QUIET) for name, cells in parts.items()})
    kinds = table.index.get_level_values(0)
    print((table["p_value"] < 0.05).groupby(kinds).mean().round(3).to_string())
    save("support", betavi.pl.support(table, kinds))
    new = {
        "measured": seen,
        **{
            name: model.generate(seen.n_obs, source=source, seed=0, **QUIET)
            for name, source in (("fitted density", "aggregate"), ("prior", "prior"))
        },
    }
    curves = betavi.metrics.mean_curves(new)
    save("mean_curves", betavi.pl.mean_curves(curves))


def translation(panel: Axes) -> None:
    """Draw one assay translated into another, with intervals."""
    mdata = betavi.datasets.pbmc_mosaic()
    scvi.settings.seed = 0
    betavi.JointVI.setup_mudata(mdata, {"rna": "nb", "adt": "nb_mixture"}, batch_key="batch")
    model = betavi.JointVI(mdata)
    model.train(max_epochs=100, train_size=0.9, enable_progress_bar=False)
    table = model.predictability("rna", "adt", **QUIET)
    print(table[["pearson", "coverage", "is_predictable"]].describe().round(3).to_string())
    save("translation", betavi.pl.translation(table.nlargest(25, "pearson")))
    both = (mdata.obsmap["rna"] > 0) & (mdata.obsmap["adt"] > 0)
    cells = [cell for cell in model.validation_indices if both[cell]]
    guess = model.translate("rna", "adt", indices=cells, scale="log1p", n_samples=100, **QUIET)
    guess = guess[:, PROTEIN]
    real = np.log1p(mdata["adt"][mdata.obs_names[cells], PROTEIN].X.toarray()).ravel()
    order = np.argsort(np.ravel(guess.X))
    low, high = (np.ravel(guess.layers[end])[order] for end in ("lower", "upper"))
    inside = (real[order] >= low) & (real[order] <= high)
    panel.fill_between(np.arange(len(order)), low, high, color=PALETTE[4], alpha=0.4, lw=0)
    panel.plot(np.ravel(guess.X)[order], color=USED, lw=1)
    colours = np.where(inside, "k", PALETTE[5])
    panel.scatter(np.arange(len(order)), real[order], s=6, c=colours, zorder=3)
    panel.set(xlabel="held-out cells, by prediction", ylabel=f"{PROTEIN}, log(1 + counts)")
    panel.set_title(f"protein from RNA: {100 * inside.mean():.0f} % inside", fontsize=10)


def main() -> None:
    begin()
    figure, panels = plt.subplots(2, 3, figsize=(9.5, 5.6), layout="constrained")
    adata = betavi.datasets.pbmc_mosaic()["rna"].copy()
    everything_of_rna(adata, panels)
    translation(panels[1, 2])
    save("readme", figure.axes)
    likelihoods(adata)
    figures_of_use.everything(adata)
    figures_of_effects.everything()


if __name__ == "__main__":
    main()
