"""Pictures of what is done with a model: a query, groups compared, genes denoised, and the time it takes.

Drawn with the others by ``python -m docs.figures``, or alone by ``python -m docs.figures_of_use``.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from anndata import AnnData
from scvi.model import SCVI

import betavi
from benchmarks.speed import Clock
from betavi.pl._style import PALETTE, USED
from docs._drawing import QUIET, begin, save, trained

MAPPED_BATCH = "p4_0"
GENES = ["CD79A", "MS4A1", "CST3", "NKG7"]
RUNS = (3, 5, 10, 20, 30)
SCVI_EPOCHS, CHECKED_EVERY = 200, 5
N_IMAGES, N_DRAWS = 300, 30


def query(adata: sc.AnnData) -> None:
    """Map one batch onto a model of the others, and draw where its cells come to lie."""
    is_query = (adata.obs["batch"] == MAPPED_BATCH).to_numpy()
    reference, cells = adata[~is_query].copy(), adata[is_query].copy()
    model = trained(reference, 100)
    betavi.BetaVI.prepare_query_anndata(cells, model)
    mapped = betavi.BetaVI.load_query_data(cells, model)
    mapped.train(max_epochs=50, plan_kwargs={"weight_decay": 0.0}, enable_progress_bar=False)
    known, latent = model.get_latent_representation(), mapped.get_latent_representation()
    table = model.transfer_labels(cells, "celltype", unknown=0.0, **QUIET)
    right = (table["guess"] == cells.obs["celltype"]).to_numpy()
    print(f"query: {right.mean():.3f} of {len(right)} labels right")
    both = sc.AnnData(
        obs=pd.concat([reference.obs[["celltype"]], cells.obs[["celltype"]]]),
        obsm={"X_z": np.vstack([known, latent])},
    )
    outcome = np.repeat(["reference", "query, label right"], [len(known), len(latent)]).astype(
        object
    )
    outcome[len(known) :][~right] = "query, label wrong"
    names = ["reference", "query, label right", "query, label wrong"]
    both.obs["label"] = pd.Categorical(outcome, names)
    sc.pp.neighbors(both, use_rep="X_z")
    sc.tl.umap(both)
    _, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    style: dict[str, Any] = {"show": False, "frameon": False, "size": 18}
    sc.pl.umap(both, color="celltype", ax=axes[0], title="both, by type", **style)
    palette = dict(zip(names, ("#d9d9d9", USED, PALETTE[5]), strict=True))
    # grey below, and what is wrong on top
    order = both[both.obs["label"].cat.codes.argsort().to_numpy()]
    title = f"{len(latent)} mapped cells, {right.mean():.0%} of labels right"
    sc.pl.umap(
        order, color="label", ax=axes[1], palette=palette, sort_order=False, title=title, **style
    )
    save("query", axes)


def differences(model: betavi.BetaVI) -> None:
    """Draw fold changes of the model beside those of the counts."""
    table = model.differential_expression(
        groupby="celltype", group1="NK", group2="B", mode="change", silent=True
    )
    raw = np.log2((table["raw_normalized_mean1"] + 1) / (table["raw_normalized_mean2"] + 1))
    called = table["is_de_fdr_0.05"].to_numpy(bool)
    print(f"differences: {called.sum()} of {len(table)} genes called")
    _, ax = plt.subplots(figsize=(4.6, 4), layout="constrained")
    for mask, style in {
        "not called": (~called, {"facecolor": "none", "edgecolor": "0.55"}),
        "called at a false discovery rate of 5 %": (called, {"color": USED}),
    }.items():
        ax.scatter(raw[style[0]], table["lfc_mean"][style[0]], s=12, label=mask, **style[1])
    ax.axline((0, 0), slope=1, color="0.6", ls="--", lw=1)
    for gene in table["lfc_mean"].abs().nlargest(6).index:
        ax.annotate(
            gene, (raw[gene], table["lfc_mean"][gene]), (4, 2), textcoords="offset points", size=7
        )
    ax.set(
        xlabel="log2 fold change of counts per 10,000, + 1", ylabel="log2 fold change of the model"
    )
    ax.set_title("NK cells beside B cells")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    save("differences", ax)


def pairs(adata: sc.AnnData, model: betavi.BetaVI) -> None:
    """Draw markers before and after they are denoised."""
    model.denoise(**QUIET)
    save("before_and_after", betavi.pl.before_and_after(adata, GENES, groupby="celltype"))


def seconds(adata: sc.AnnData) -> None:
    """Draw the held-out ELBO over the time that training took."""
    clock = Clock()
    scvi.settings.seed = 0
    SCVI.setup_anndata(adata, batch_key="batch")
    peer = SCVI(adata)
    peer.train(
        SCVI_EPOCHS, train_size=0.75, accelerator="cpu", enable_progress_bar=False,
        callbacks=[clock], check_val_every_n_epoch=CHECKED_EVERY,
    )  # fmt: skip
    curve = peer.history["elbo_validation"]["elbo_validation"].astype(float)
    per_epoch = np.median(clock.seconds) * -(-len(peer.train_indices) // 128)
    rows: list[dict[str, Any]] = []
    trained(adata, 1)  # what is compiled once
    for n_epochs in RUNS:
        start = time.perf_counter()
        model = trained(adata, n_epochs)
        took = time.perf_counter() - start
        nats = -float(model.get_elbo(indices=model.validation_indices))
        rows.append({"epochs": n_epochs, "seconds": took, "nats": nats})
    ours = pd.DataFrame(rows)
    at = (curve.index.to_numpy() + 1) * per_epoch
    print(ours.round(2).to_string(index=False))
    print(
        f"SCVI: {curve.min():.1f} nats after {at[curve.argmin()]:.1f} s, {per_epoch:.2f} s an epoch"
    )
    _, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
    ax.plot(at, curve, color=PALETTE[5], label=f"SCVI, one run of {SCVI_EPOCHS} epochs")
    ax.plot(
        ours["seconds"], ours["nats"], "o--", color=USED, label="BetaVI, one run for each point"
    )
    for row in ours.itertuples():
        ax.annotate(
            f"{row.epochs}", (row.seconds, row.nats), (4, 4), textcoords="offset points", size=7
        )
    top = float(np.quantile(curve, 0.9))
    ax.set(xlabel="seconds of training", ylabel="$-$ELBO, nats per held-out cell", xscale="log")
    ax.set_ylim(min(curve.min(), ours["nats"].min()) - 1, max(top, ours["nats"].max()) + 1)
    ax.legend()
    save("seconds", ax)


def image_draws() -> None:
    """Draw simulated filaments beside draws of models with three likelihoods."""
    filaments = betavi.datasets.simulate_filaments(N_IMAGES + N_DRAWS, 64, n_genes=0)
    images = filaments["image"].obsm["image"]
    sets = {"measured": images[N_IMAGES:]}
    for likelihood in ("normal_image", "band_normal", "multiscale_normal"):
        scvi.settings.seed = 0
        adata = AnnData(obsm={"image": images[:N_IMAGES]})
        betavi.BetaVI.setup_anndata(adata, image_key="image")
        model = betavi.BetaVI(adata, n_latent=32, gene_likelihood=likelihood)
        model.train(enable_progress_bar=False)
        sets[likelihood] = model.generate(N_DRAWS, **QUIET).obsm["image"]
    save("image_draws", betavi.pl.images(sets))


def everything(adata: sc.AnnData) -> None:
    query(adata)
    model = trained(adata, 60)
    differences(model)
    pairs(adata, model)
    seconds(adata)
    image_draws()


if __name__ == "__main__":
    begin()
    everything(betavi.datasets.pbmc_mosaic()["rna"].copy())
