"""Demonstration of betavi on real blood cells, in a scanpy workflow. Run with ``make demo``.

The demo trains BetaVI and SCVI in the same way, denoises the counts, trains a range of β at once,
diagnoses a good and a collapsed latent space, and draws a map of the latent space. JointVI then puts
cells with RNA, with surface proteins and with both into one latent space, and predicts the missing
proteins. EffectVI predicts a pair of perturbations in a simulated screen. At the end, a report of each of
the three models says what the model can be used for. Each step prints what was done, the result and its
files in ``demo-output/``.
"""

from __future__ import annotations

import logging
import sys
import textwrap
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from tutorials.demo_screen import LEFT_OUT, predict_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTPUT = Path("demo-output")
TRAINING = {"max_epochs": 100, "plan_kwargs": {"n_epochs_kl_warmup": 20, "lr": 1e-3}}
NEIGHBOURS = 15
BETAS = (0.1, 30.0)
TOO_HIGH = 500.0
SHORTER = 40
"""Epochs of models that do not need the best fit."""

QUIET: dict[str, Any] = {"show_progress": False}
MARKERS = ("CD79A", "MS4A1", "CST3", "NKG7", "CD8A")
N_COMPONENTS = (2, 5, 10, 20)
SHOWN = ("cd3.1", "cd4.1", "cd8a", "cd14")
ENDS = ("CD4 T", "CD8 T")
REPORTED = ("data", "training", "latent", "counts", "cells")
"""Sections of the reports that need no further training."""

ELBO = "-ELBO (nats per held-out cell)"
BY_TYPE = "Accuracy of cell types predicted from neighbours (high is better)"
BY_BATCH = "Accuracy of batches predicted from neighbours (low is better)"
BY_CLUSTER = "Agreement of cell types and Leiden clusters, ARI (high is better)"

PAGES = {
    "docs/start.md": ("pbmc.h5ad", "umap.png"),
    "docs/guide/scvi.md": ("table.csv", "training.png"),
    "docs/guide/denoise.md": (
        "before_and_after.png", "denoised.h5ad", "denoised_genes.csv", "denoising.png",
    ),
    "docs/guide/beta.md": ("rate_distortion.csv", "rate_distortion.png"),
    "docs/guide/collapse.md": ("collapse.png", "collapse_history.png"),
    "docs/guide/map.md": (
        "generated.h5ad", "generated.h5mu", "joint_path.png", "map.png", "path.png", "support.png",
    ),
    "docs/guide/effects.md": ("effects.png", "predicted_pair.csv"),
    "docs/guide/joint.md": (
        "mosaic.png", "predictability.csv", "translated_proteins.h5ad", "translation.png",
    ),
    "docs/guide/report.md": ("report_betavi.html", "report_jointvi.html", "report_effectvi.html"),
}  # fmt: skip
"""Files of the demo, by the page of the documentation that explains them."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the warnings and messages of libraries."""
    loggers = [
        logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "scvi")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def progress() -> dict[str, bool]:
    """Show the progress of training in a terminal only."""
    return {"enable_progress_bar": sys.stdout.isatty()}


def wrapped(line: str) -> str:
    """Return an indented line of at most 100 characters, with file names in one piece."""
    indents = {"initial_indent": "  ", "subsequent_indent": "    "}
    return textwrap.fill(line, 100, break_on_hyphens=False, **indents)


def summarise(done: str, results: list[str], files: tuple[str, ...]) -> None:
    """Print what a step has done, its results, and its files."""
    files_of_step = "Files: " + ", ".join(str(OUTPUT / name) for name in files)
    print(f"\n{done}")
    for line in (*results, files_of_step):
        print(wrapped(line), flush=True)


def label_agreement(adata: sc.AnnData, key: str) -> dict[str, float]:
    """Measure how well a latent space separates cell types and mixes batches."""
    latent, labels = adata.obsm[key], adata.obs["celltype"]
    knn = KNeighborsClassifier(NEIGHBOURS)
    sc.pp.neighbors(adata, n_neighbors=NEIGHBOURS, use_rep=key)
    clusters = f"Leiden on {key}"
    sc.tl.leiden(adata, key_added=clusters, flavor="igraph", n_iterations=2)
    return {
        BY_TYPE: cross_val_score(knn, latent, labels).mean(),
        BY_BATCH: cross_val_score(knn, latent, adata.obs["batch"]).mean(),
        BY_CLUSTER: adjusted_rand_score(labels, adata.obs[clusters]),
    }


def draw_cells(adata: sc.AnnData, fits: dict[str, Fit]) -> None:
    """Draw a UMAP of the cells, and the ELBO during training."""
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
    axes.set(xlabel="epoch", ylabel="$-$ELBO (nats per held-out cell)", title="training")
    axes.legend(frameon=False)
    figure.savefig(OUTPUT / "training.png", dpi=150)


def train_both(adata: sc.AnnData) -> betavi.BetaVI:
    """Train BetaVI and SCVI in the same way, and compare them."""
    fits = {
        cls.__name__: fit(
            cls, adata, "batch", seed=0, check_val_every_n_epoch=1, **TRAINING, **progress()
        )
        for cls in (betavi.BetaVI, scvi.model.SCVI)
    }
    model = fits["BetaVI"].model
    table = {}
    for name, key in (("BetaVI", "X_betavi"), ("SCVI", "X_scvi")):
        adata.obsm[key] = fits[name].model.get_latent_representation()
        table[name] = {
            ELBO: fits[name].negative_elbo,
            **label_agreement(adata, key),
            "Training time (seconds)": fits[name].seconds,
        }
    adata.layers["normalized"] = model.get_normalized_expression(library_size=1e4).to_numpy()
    draw_cells(adata, fits)
    summary = pd.DataFrame(table)
    summary.round(3).to_csv(OUTPUT / "table.csv")
    summarise(
        f"1. Trained BetaVI and SCVI for {TRAINING['max_epochs']} epochs on the RNA of {adata.n_obs} "
        f"blood cells ({adata.n_vars} genes, {adata.obs['batch'].nunique()} batches).",
        [
            f"{row}: BetaVI {values['BetaVI']:.4g}, SCVI {values['SCVI']:.4g}."
            for row, values in summary.iterrows()
        ],
        ("table.csv", "training.png", "umap.png"),
    )
    return model


def denoise(model: betavi.BetaVI, adata: sc.AnnData) -> None:
    """Denoise the counts, and test on held-out molecules for which genes this works."""
    model.denoise(adata, std_layer_added="denoised_std", **QUIET)
    betavi.pl.before_and_after(adata, MARKERS, groupby="celltype")
    plt.gcf().savefig(OUTPUT / "before_and_after.png", dpi=150)
    # with out=, results go to a file in minibatches, for matrices that do not fit in memory
    model.denoise(adata, out=OUTPUT / "denoised.h5ad", drop_below=0.05, **QUIET)
    report = model.cross_validate_denoising(max_epochs=SHORTER, **QUIET)
    report.genes.to_csv(OUTPUT / "denoised_genes.csv")
    betavi.pl.denoising(report)[0].figure.savefig(OUTPUT / "denoising.png", dpi=150)
    adata.write_h5ad(OUTPUT / "pbmc.h5ad")
    summarise(
        "2. Denoised the counts, and tested the denoising on held-out molecules.",
        [str(report)],
        (*PAGES["docs/guide/denoise.md"], "pbmc.h5ad"),
    )


def train_range_of_beta(adata: sc.AnnData) -> None:
    """Train a range of β at once, and draw the rate-distortion curve."""
    options = {"max_epochs": TRAINING["max_epochs"], **progress()}
    model = fit(betavi.BetaVI, adata, "batch", 0, {"beta": BETAS}, **options).model
    held_out, seen = model.validation_indices, model.train_indices
    curve = model.rate_distortion(indices=held_out, **QUIET)
    # the agreement needs all cells, because few cells of a rare type are held out
    agreement = model.rate_distortion(
        indices=np.arange(adata.n_obs), labels_key="celltype", **QUIET
    )
    pca = betavi.metrics.pca_rate_distortion(
        model.raw_counts(seen), model.raw_counts(held_out), N_COMPONENTS
    )
    figure, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained")
    betavi.pl.rate_distortion(curve, ax=axes[0])
    betavi.pl.rate_distortion(curve, reference=pca, ax=axes[1])
    betavi.pl.rate_distortion(agreement, x="beta", y="agreement_rare", ax=axes[2])
    for ax, title in zip(
        axes, ("held-out cells", "comparison with PCA", "rare types"), strict=True
    ):
        ax.set_title(title)
    figure.savefig(OUTPUT / "rate_distortion.png", dpi=150)
    curve.merge(agreement.filter(regex="beta|agreement"), on="beta").to_csv(
        OUTPUT / "rate_distortion.csv", index=False
    )
    chosen = {name: model.suggest_beta(name, **QUIET) for name in ("held_out", "knee")}
    summarise(
        f"3. Trained all β from {BETAS[0]:g} to {BETAS[1]:g} at once, and drew the rate-distortion "
        "curve.",
        [f"Criterion {name!r}: {suggestion}" for name, suggestion in chosen.items()],
        PAGES["docs/guide/beta.md"],
    )


def diagnose(healthy: betavi.BetaVI, adata: sc.AnnData) -> None:
    """Diagnose the model, and a model with a β that is too high."""
    options = {"max_epochs": SHORTER, **progress()}
    collapsed = fit(betavi.BetaVI, adata, "batch", 0, {"beta": TOO_HIGH}, **options).model
    models = {"β = 1": healthy, f"β = {TOO_HIGH:g}": collapsed}
    figure, axes = plt.subplots(2, 3, figsize=(13, 6.6), layout="constrained")
    results = []
    for row, (name, model) in zip(axes, models.items(), strict=True):
        report = model.diagnose(**QUIET)
        betavi.pl.collapse(report, row)
        row[0].set_title(f"{name}: {report.verdict}")
        results.append(f"{name}: {str(report).splitlines()[0]}")
        results += [f"Cause: {cause}" for cause in report.causes[:1]]
    figure.savefig(OUTPUT / "collapse.png", dpi=150)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for ax, (name, model) in zip(axes, models.items(), strict=True):
        betavi.pl.collapse_history(model.history, ax).set_title(name)
    figure.savefig(OUTPUT / "collapse_history.png", dpi=150)
    summarise(
        f"4. Diagnosed the latent space, and that of a second model with β = {TOO_HIGH:g}.",
        results,
        PAGES["docs/guide/collapse.md"],
    )


def draw_map(model: betavi.BetaVI, adata: sc.AnnData) -> None:
    """Draw the latent space with paths and holes, generate cells, and find outlying cells."""
    types = adata.obs["celltype"]
    start, end = types.value_counts().index[:2]
    masks = [(types == name).to_numpy() for name in (start, end)]
    paths = {
        path: model.interpolate(*masks, path=path, **QUIET) for path in ("straight", "density")
    }
    holes, archetype = model.find_holes(**QUIET), model.archetype(**QUIET)
    betavi.pl.latent_map(
        model.latent_density(**QUIET), model.get_latent_representation(), types,
        list(paths.values()), holes, archetype,
    ).figure.savefig(OUTPUT / "map.png", dpi=150)  # fmt: skip
    betavi.pl.latent_path(paths["density"])[0].figure.savefig(OUTPUT / "path.png", dpi=150)

    new = model.generate(adata.n_obs, source="aggregate", seed=0, **QUIET)
    new.write_h5ad(OUTPUT / "generated.h5ad")
    new.obs["celltype"] = types.loc[new.obs["near_cell"]].to_numpy()
    unseen = adata[model.validation_indices].copy()
    auc = betavi.metrics.realism(unseen, new, groupby="celltype")["auc"]
    shuffled = unseen.copy()
    rng = np.random.default_rng(0)
    shuffled.X = np.array([rng.permutation(row) for row in shuffled.X.toarray()])
    parts = {"held out": unseen, "genes shuffled": shuffled}
    table = pd.concat({name: model.support(cells, **QUIET) for name, cells in parts.items()})
    groups = table.index.get_level_values(0)
    betavi.pl.support(table, groups).figure.savefig(OUTPUT / "support.png", dpi=150)
    called = (table["p_value"] < 0.05).groupby(groups).mean()
    lowest = {name: path.obs["p_value"].min() for name, path in paths.items()}
    summarise(
        "5. Drew the map of the latent space, generated cells, and searched for outlying cells.",
        [
            f"Lowest p-value on the path from {start} to {end}: {lowest['straight']:.3f} on the "
            f"straight line, {lowest['density']:.3f} along the density of cells.",
            f"Holes: {holes.n_obs}. p-value of the archetype: {archetype.obs['p_value'].iloc[0]:.3f}.",
            f"Outlying at 0.05: {called['held out']:.1%} of held-out cells, "
            f"{called['genes shuffled']:.1%} of cells with shuffled genes.",
            f"A classifier separates generated from real cells with an AUC of {auc['generated']:.2f} "
            f"(0.5 is best; other real cells {auc['other real cells']:.2f}, shuffled genes "
            f"{auc['genes shuffled']:.2f}).",
        ],
        ("map.png", "path.png", "support.png", "generated.h5ad"),
    )


def join_assays() -> betavi.JointVI:
    """Put cells with RNA, with proteins and with both into one space, and translate."""
    mdata = betavi.datasets.pbmc_mosaic()
    betavi.JointVI.setup_mudata(mdata, {"rna": "nb", "adt": "nb_mixture"}, batch_key="batch")
    scvi.settings.seed = 0
    model = betavi.JointVI(mdata)
    model.train(max_epochs=TRAINING["max_epochs"], train_size=0.9, **progress())
    latent = model.get_latent_representation()
    cells = sc.AnnData(obs=mdata.obs[["batch", "celltype"]].copy(), obsm={"X_jointvi": latent})
    has = {name: mdata.obsmap[name] > 0 for name in ("rna", "adt")}
    cells.obs["measured"] = np.select(
        [has["rna"] & has["adt"], has["rna"]], ["both", "RNA"], "protein"
    )
    proteins = model.translate(
        "rna", "adt", indices=np.flatnonzero(has["rna"] & ~has["adt"]), **QUIET
    )
    for name in SHOWN:
        measured = mdata["adt"].obs_names
        cells.obs.loc[measured, name] = np.log1p(mdata["adt"][:, name].X.toarray().ravel())
        cells.obs.loc[proteins.obs_names, name] = np.log1p(proteins[:, name].X.ravel())
    sc.pp.neighbors(cells, n_neighbors=NEIGHBOURS, use_rep="X_jointvi")
    sc.tl.umap(cells)
    titles = ["cell type", "measured assays", *(f"{name}, log(1 + counts)" for name in SHOWN)]
    figure = sc.pl.umap(
        cells, color=["celltype", "measured", *SHOWN], title=titles, wspace=0.35, ncols=3,
        frameon=False, show=False, return_fig=True,
    )  # fmt: skip
    figure.savefig(OUTPUT / "mosaic.png", dpi=150, bbox_inches="tight")

    table = model.predictability("rna", "adt", **QUIET)
    table.to_csv(OUTPUT / "predictability.csv")
    betavi.pl.translation(table)[0].figure.savefig(OUTPUT / "translation.png", dpi=150)
    proteins.write_h5ad(OUTPUT / "translated_proteins.h5ad")
    counts = cells.obs["measured"].value_counts()
    scores = score(mdata, latent)
    summarise(
        f"6. Trained JointVI on {mdata.n_obs} cells ({counts['both']} with RNA and protein, "
        f"{counts['RNA']} with RNA, {counts['protein']} with protein), and predicted proteins from RNA.",
        [
            f"Correct cell types from paired neighbours: {scores['labels, RNA only']:.1%} of cells with "
            f"RNA, {scores['labels, protein only']:.1%} of cells with protein.",
            f"{table['is_predictable'].sum()} of {len(table)} proteins are predicted significantly "
            f"better than by their mean. {table['coverage'].mean():.1%} of held-out values are in the "
            "90 % interval.",
            f"Verdict on the latent space: {str(model.diagnose(**QUIET)).splitlines()[0]}",
        ],
        PAGES["docs/guide/joint.md"],
    )
    draw_joint_map(model, mdata.obs["celltype"])
    return model


def draw_joint_map(model: betavi.JointVI, labels: pd.Series) -> None:
    """Draw a path between two types in both assays, and generate cells with both."""
    masks = [(labels == name).to_numpy() for name in ENDS]
    path = model.interpolate(*masks, path="density", **QUIET)
    betavi.pl.latent_path(path["adt"])[0].figure.savefig(OUTPUT / "joint_path.png", dpi=150)
    new = model.generate(len(labels), source="aggregate", seed=0, **QUIET)
    new.write(OUTPUT / "generated.h5mu")
    outlying = (model.support(new, **QUIET)["p_value"] < 0.05).mean()
    summarise(
        f"7. Drew a path from {ENDS[0]} to {ENDS[1]} in RNA and protein, and generated {new.n_obs} "
        "cells with both assays.",
        [
            f"Lowest p-value on the path: {path.obs['p_value'].min():.3f}. {outlying:.1%} of the "
            "generated cells are outlying at 0.05."
        ],
        ("joint_path.png", "generated.h5mu"),
    )


def predict_perturbations() -> betavi.EffectVI:
    """Predict a pair of perturbations in a simulated screen."""
    model, results = predict_pair(OUTPUT, SHORTER)
    summarise(
        f"8. Trained EffectVI on a simulated screen, and predicted the pair {LEFT_OUT}, which was left out.",
        results,
        PAGES["docs/guide/effects.md"],
    )
    return model


def report(models: dict[str, betavi.BetaVI | betavi.JointVI | betavi.EffectVI]) -> None:
    """Write a page about each model that says what it can be used for."""
    results = []
    for name, model in models.items():
        more = ("denoising",) if name == "BetaVI" else ("effects", "interactions")
        sections = [*REPORTED, *(() if name == "JointVI" else more)]
        content = model.report(OUTPUT / f"report_{name.lower()}.html", sections=sections, **QUIET)
        results.append(f"{name}: {content['answers']['usable']}")
    summarise(
        "9. Wrote a report of each model, which says for what the model can be trusted. Open it in a browser.",
        results,
        PAGES["docs/guide/report.md"],
    )


def main() -> None:
    """Run all steps, and list the files."""
    mpl.use("Agg")
    mpl.rcParams["figure.figsize"] = (4, 4)
    OUTPUT.mkdir(exist_ok=True)
    with quiet_libraries():
        adata = betavi.datasets.pbmc_mosaic()["rna"].copy()
        model = train_both(adata)
        denoise(model, adata)
        train_range_of_beta(adata)
        diagnose(model, adata)
        draw_map(model, adata)
        joint = join_assays()
        screen = predict_perturbations()
        report({"BetaVI": model, "JointVI": joint, "EffectVI": screen})
    print(f"\nFiles in {OUTPUT}, and the page that explains them:")
    for page, files in PAGES.items():
        print(wrapped(f"{page}: {', '.join(files)}"))


if __name__ == "__main__":
    main()
