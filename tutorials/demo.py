"""What betavi does, on real cells in a scanpy workflow. Run with ``make demo``.

Takes the RNA of 1,200 blood cells, trains BetaVI and, in the same way, SCVI; trains every β from
0.1 to 30 at once; denoises the counts and says which genes to trust; asks whether the latent space is alive, and that of a model that was made to
collapse; draws the map, with ways between types, holes, and cells that are none. Then JointVI puts cells with RNA, with surface proteins and with both into one latent
space, carries the labels across, and says what proteins the cells without them would have shown.
Annotated objects, figures and tables are in ``demo-output/``.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import betavi
from benchmarks.mosaic import score
from benchmarks.peers import Fit, fit

OUTPUT = Path("demo-output")
TRAINING = {"max_epochs": 100, "plan_kwargs": {"n_epochs_kl_warmup": 20, "lr": 1e-3}}
NEIGHBOURS = 15
BETAS = (0.1, 30.0)
TOO_HIGH = 500.0
SHORTER = 40
"""Epochs of models that are shown for something else than how well they fit."""

MARKERS = ("CD79A", "MS4A1", "CST3", "NKG7", "CD8A")
N_COMPONENTS = (2, 5, 10, 20)
SHOWN = ("cd3.1", "cd4.1", "cd8a", "cd14")
WALK = ("CD4 T", "CD8 T")


def label_agreement(adata: sc.AnnData, key: str) -> dict[str, float]:
    """Say how well a latent space keeps cell types apart, and batches together."""
    latent, labels = adata.obsm[key], adata.obs["celltype"]
    knn = KNeighborsClassifier(NEIGHBOURS)
    sc.pp.neighbors(adata, n_neighbors=NEIGHBOURS, use_rep=key)
    clusters = f"Leiden on {key}"
    sc.tl.leiden(adata, key_added=clusters, flavor="igraph", n_iterations=2)
    return {
        "type of a cell guessed from its neighbours (high: kept apart)": cross_val_score(
            knn, latent, labels
        ).mean(),
        "batch of a cell guessed from its neighbours (low: mixed)": cross_val_score(
            knn, latent, adata.obs["batch"]
        ).mean(),
        "Leiden clusters and types (ARI)": adjusted_rand_score(labels, adata.obs[clusters]),
    }


def draw(adata: sc.AnnData, fits: dict[str, Fit]) -> None:
    """Write the figures."""
    sc.pp.neighbors(adata, n_neighbors=NEIGHBOURS, use_rep="X_betavi")
    sc.tl.umap(adata)
    figure = sc.pl.umap(
        adata,
        color=["celltype", "batch", "Leiden on X_betavi"],
        title=["cell type", "batch", "Leiden clusters"],
        wspace=0.3,
        frameon=False,
        show=False,
        return_fig=True,
    )
    figure.savefig(OUTPUT / "umap.png", dpi=150, bbox_inches="tight")

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for name, result in fits.items():
        history = result.model.history["elbo_validation"].astype(float)
        axes.plot(history.index + 1, history.iloc[:, 0], label=name)
    axes.set(xlabel="epoch", ylabel="$-$ELBO, nats per held-out cell", title="Training")
    axes.legend(frameon=False)
    figure.savefig(OUTPUT / "training.png", dpi=150)


def every_beta(adata: sc.AnnData) -> pd.DataFrame:
    """Train every β at once, and draw what it buys and what it blurs."""
    result = fit(
        betavi.BetaVI, adata, "batch", 0, {"beta": BETAS}, max_epochs=TRAINING["max_epochs"]
    )
    model = result.model
    held_out, seen = model.validation_indices, model.train_indices
    curve = model.rate_distortion(indices=held_out)
    # of all cells, as few of a rare type are held out
    blurred = model.rate_distortion(indices=np.arange(adata.n_obs), labels_key="celltype")
    pca = betavi.metrics.pca_rate_distortion(
        model.raw_counts(seen), model.raw_counts(held_out), N_COMPONENTS
    )
    figure, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained")
    betavi.pl.rate_distortion(curve, ax=axes[0])
    betavi.pl.rate_distortion(curve, reference=pca, ax=axes[1])
    betavi.pl.rate_distortion(blurred, x="beta", y="agreement_rare", ax=axes[2])
    figure.suptitle("Every β from one training: held-out cells; beside PCA; rare types")
    figure.savefig(OUTPUT / "rate_distortion.png", dpi=150)
    for criterion in ("held_out", "knee"):
        print(f"{criterion}: {model.suggest_beta(criterion)}")
    return curve.merge(blurred.filter(regex="beta|agreement"), on="beta")


def is_it_alive(healthy: betavi.BetaVI, adata: sc.AnnData) -> None:
    """Diagnose the model, and beside it one that was made to collapse; draw both."""
    lost = fit(betavi.BetaVI, adata, "batch", 0, {"beta": TOO_HIGH}, max_epochs=SHORTER).model
    figure, axes = plt.subplots(2, 3, figsize=(13, 6.6), layout="constrained")
    for row, (name, model) in zip(
        axes, {"β = 1": healthy, f"β = {TOO_HIGH:g}": lost}.items(), strict=True
    ):
        report = model.diagnose(show_progress=False)
        print(f"\n{name}: {report}")
        betavi.pl.collapse(report, row)
        row[0].set_title(f"{name}: {report.verdict}")
    figure.savefig(OUTPUT / "collapse.png", dpi=150)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for ax, model in zip(axes, (healthy, lost), strict=True):
        betavi.pl.collapse_history(model.history, ax)
    figure.savefig(OUTPUT / "collapse_history.png", dpi=150)


def denoise(model: betavi.BetaVI, adata: sc.AnnData) -> None:
    """Take the noise out of the counts, and say of which genes to believe it."""
    model.denoise(adata, std_layer_added="denoised_std", show_progress=False)
    betavi.pl.before_and_after(adata, MARKERS, groupby="celltype")
    plt.gcf().savefig(OUTPUT / "before_and_after.png", dpi=150)
    # the same into a file, a minibatch at a time, as of a matrix that fits nowhere else
    model.denoise(adata, out=OUTPUT / "denoised.h5ad", drop_below=0.05, show_progress=False)
    report = model.cross_validate_denoising(show_progress=False, max_epochs=SHORTER)
    print(f"\nDenoising: {report}\n{report.methods.round(4).to_string()}")
    report.genes.to_csv(OUTPUT / "denoised_genes.csv")
    betavi.pl.denoising(report)[0].figure.savefig(OUTPUT / "denoising.png", dpi=150)


def possible(model: betavi.BetaVI, adata: sc.AnnData) -> None:
    """Draw the map: where cells are, ways between types, holes, and what is no possible cell."""
    types = adata.obs["celltype"]
    most = types.value_counts().index
    ends = [(types == name).to_numpy() for name in most[:2]]
    ways = {path: model.interpolate(*ends, path=path) for path in ("straight", "density")}
    holes, archetype = model.find_holes(), model.archetype()
    betavi.pl.latent_map(
        model.latent_density(), model.get_latent_representation(), types, list(ways.values()),
        holes, archetype,
    ).figure.savefig(OUTPUT / "map.png", dpi=150)  # fmt: skip
    betavi.pl.latent_path(ways["density"])[0].figure.savefig(OUTPUT / "path.png", dpi=150)
    least = {path: way.obs["p_value"].min() for path, way in ways.items()}
    print(
        f"\nFrom {most[0]} to {most[1]}, the least p-value on the way: {pd.Series(least).to_dict()}"
    )
    print(f"The archetype has a p-value of {archetype.obs['p_value'].iloc[0]:.3f}; "
          f"{holes.n_obs} hole(s)")  # fmt: skip

    new = model.generate(adata.n_obs, source="aggregate", seed=0, show_progress=False)
    new.write_h5ad(OUTPUT / "generated.h5ad")
    new.obs["celltype"] = types.loc[new.obs["near_cell"]].to_numpy()
    unseen = adata[model.validation_indices].copy()
    print(betavi.metrics.realism(unseen, new, groupby="celltype").round(3).to_string())
    shuffled = unseen.copy()
    rng = np.random.default_rng(0)
    shuffled.X = np.array([rng.permutation(row) for row in shuffled.X.toarray()])
    parts = {"held out": unseen, "genes shuffled": shuffled}
    judged = {name: model.support(cells, show_progress=False) for name, cells in parts.items()}
    table = pd.concat(judged)
    betavi.pl.support(table, table.index.get_level_values(0)).figure.savefig(
        OUTPUT / "support.png", dpi=150
    )


def joint_map(model: betavi.JointVI, labels: pd.Series) -> None:
    """Walk between two types in both assays, and draw new cells that have both."""
    ends = [(labels == name).to_numpy() for name in WALK]
    way = model.interpolate(*ends, path="density", show_progress=False)
    betavi.pl.latent_path(way["adt"])[0].figure.savefig(OUTPUT / "joint_path.png", dpi=150)
    new = model.generate(len(labels), source="aggregate", seed=0, show_progress=False)
    new.write(OUTPUT / "generated.h5mu")
    table = model.support(new, show_progress=False)
    print(f"\nFrom {WALK[0]} to {WALK[1]}, in RNA and proteins, the least p-value on the way: "
          f"{way.obs['p_value'].min():.3f}. Of {new.n_obs} generated cells with both assays "
          f"{(table['p_value'] < 0.05).mean():.1%} are called impossible.")  # fmt: skip


def mosaic() -> None:
    """Put cells with RNA only, protein only and both into one space, and translate."""
    mdata = betavi.datasets.pbmc_mosaic()
    betavi.JointVI.setup_mudata(mdata, {"rna": "nb", "adt": "nb_mixture"}, batch_key="batch")
    scvi.settings.seed = 0
    model = betavi.JointVI(mdata)
    model.train(max_epochs=TRAINING["max_epochs"], train_size=0.9)
    latent = model.get_latent_representation()
    print(f"\nThe mosaic:\n{pd.Series(score(mdata, latent)).round(3).to_string()}")
    print(f"\n{model.diagnose(show_progress=False)}")

    cells = sc.AnnData(obs=mdata.obs[["batch", "celltype"]].copy(), obsm={"X_jointvi": latent})
    has = {name: mdata.obsmap[name] > 0 for name in ("rna", "adt")}
    cells.obs["measured"] = np.select(
        [has["rna"] & has["adt"], has["rna"]], ["both", "RNA"], "protein"
    )
    proteins = model.translate("rna", "adt", indices=np.flatnonzero(has["rna"] & ~has["adt"]))
    for name in SHOWN:
        measured = mdata["adt"].obs_names
        cells.obs.loc[measured, name] = np.log1p(mdata["adt"][:, name].X.toarray().ravel())
        cells.obs.loc[proteins.obs_names, name] = np.log1p(proteins[:, name].X.ravel())
    sc.pp.neighbors(cells, n_neighbors=NEIGHBOURS, use_rep="X_jointvi")
    sc.tl.umap(cells)
    titles = ["cell type", "what was measured", *(f"{name}, log counts" for name in SHOWN)]
    figure = sc.pl.umap(
        cells, color=["celltype", "measured", *SHOWN], title=titles, wspace=0.35, ncols=3,
        frameon=False, show=False, return_fig=True,
    )  # fmt: skip
    figure.savefig(OUTPUT / "mosaic.png", dpi=150, bbox_inches="tight")

    table = model.predictability("rna", "adt", show_progress=False)
    table.to_csv(OUTPUT / "predictability.csv")
    betavi.pl.translation(table)[0].figure.savefig(OUTPUT / "translation.png", dpi=150)
    print(f"\n{table['is_predictable'].sum()} of {len(table)} proteins are surely predicted better from "
          f"RNA than by their mean; {table['coverage'].mean():.1%} of the held-out values are within "
          "the 90 % interval.")  # fmt: skip
    proteins.write_h5ad(OUTPUT / "translated_proteins.h5ad")
    joint_map(model, mdata.obs["celltype"])


def main() -> None:
    mpl.use("Agg")
    mpl.rcParams["figure.figsize"] = (4, 4)
    OUTPUT.mkdir(exist_ok=True)
    adata = betavi.datasets.pbmc_mosaic()["rna"].copy()
    print(f"RNA of {adata.n_obs} blood cells, {adata.n_vars} genes, {adata.obs['batch'].nunique()}"
          " batches")  # fmt: skip

    fits = {
        cls.__name__: fit(cls, adata, "batch", seed=0, check_val_every_n_epoch=1, **TRAINING)
        for cls in (betavi.BetaVI, scvi.model.SCVI)
    }
    model = fits["BetaVI"].model
    table = {}
    for name, key in (("BetaVI", "X_betavi"), ("SCVI", "X_scvi")):
        adata.obsm[key] = fits[name].model.get_latent_representation()
        table[name] = {
            "-ELBO, nats per held-out cell": fits[name].negative_elbo,
            **label_agreement(adata, key),
            "training, seconds": fits[name].seconds,
        }
    adata.layers["normalized"] = model.get_normalized_expression(library_size=1e4).to_numpy()
    draw(adata, fits)
    denoise(model, adata)
    adata.write_h5ad(OUTPUT / "pbmc.h5ad")
    summary = pd.DataFrame(table).round(3)
    summary.to_csv(OUTPUT / "table.csv")
    print(f"\nBoth models: {TRAINING['max_epochs']} epochs, the same {len(model.validation_indices)}"
          f" cells held out\n\n{summary.to_string()}\n")  # fmt: skip
    curve = every_beta(adata)
    curve.to_csv(OUTPUT / "rate_distortion.csv", index=False)
    print(curve.round(2).to_string(index=False), "\n")
    is_it_alive(model, adata)
    possible(model, adata)
    mosaic()
    print(f"Written to {OUTPUT}/:", *sorted(path.name for path in OUTPUT.iterdir()))


if __name__ == "__main__":
    main()
