"""Label transfer to cells of a new batch, by mapping them onto a reference model.

Control cells of Kang et al. are the reference, and cells stimulated by interferon are the query. A
query cell gets the majority label of its 15 nearest control cells. BetaVI and SCVI map the query, and
are also trained on all cells together. The baseline is PCA of log counts without correction for
the batch. ``python -m benchmarks.query [seed ...]`` takes five minutes per seed. The default is
seeds 0 to 4, because a type between two others is assigned to one of them by chance. The table has
means over seeds, and the lowest and highest share of correct labels.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import scvi
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from benchmarks.middles import logs
from benchmarks.peers import AS_SCVI, quietly
from benchmarks.realism import read
from betavi import BetaVI

N_NEIGHBORS = 15
QUIET: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False}
FROZEN = {"weight_decay": 0.0}
"""Plan arguments of a query's training, so that frozen weights do not decay."""

HOW: dict[str, dict[str, Any]] = {
    "mapped": {},
    "mapped, the encoder reads the batch": {
        "encode_covariates": True, "use_layer_norm": "both", "use_batch_norm": "none"
    },
}  # fmt: skip
"""Ways to learn a new batch: by the decoder only (default), or by the encoder as well."""


MODELS: dict[str, tuple[type, dict[str, Any]]] = {
    "SCVI": (scvi.model.SCVI, {}),
    "BetaVI": (BetaVI, {}),
    "BetaVI, started and trained as SCVI": (
        BetaVI,
        {
            "max_epochs": 400,
            "plan_kwargs": {"from_moments": False, "n_epochs_kl_warmup": 400, **AS_SCVI},
        },
    ),
}  # fmt: skip
"""Models, with the arguments of their training."""


def scores(reference: np.ndarray, query: np.ndarray, labels: list[np.ndarray]) -> dict[str, float]:
    """Return the share of correct labels, and the entropy of batches among neighbours."""
    guess = KNeighborsClassifier(N_NEIGHBORS).fit(reference, labels[0]).predict(query)
    both = np.vstack([reference, query])
    is_query = np.repeat([0, 1], [len(reference), len(query)])
    near = NearestNeighbors(n_neighbors=N_NEIGHBORS + 1).fit(both).kneighbors(both)[1][:, 1:]
    share = np.clip(is_query[near].mean(axis=1), 1e-12, 1 - 1e-12)
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    by_type = pd.Series(guess == labels[1]).groupby(labels[1]).mean()
    return {
        "labels": float((guess == labels[1]).mean()),
        "mean over types": float(by_type.mean()),
        "batch entropy": float(entropy.mean()),
    }


def measure(cls: type, training: dict[str, Any], seed: int) -> dict[str, dict[str, float]]:
    """Return the scores of one seed, by kind of training."""
    data = read("kang")
    is_query = (data.adata.obs[data.batch_key] == "stim").to_numpy()
    parts = [data.adata[~is_query].copy(), data.adata[is_query].copy()]
    labels = [part.obs["type"].to_numpy() for part in parts]
    found = {}
    for how, arguments in HOW.items():
        scvi.settings.seed = seed
        cls.setup_anndata(parts[0], batch_key=data.batch_key)
        model = cls(parts[0], **arguments)
        model.train(**QUIET, **training)
        query = parts[1].copy()
        cls.prepare_query_anndata(query, model)
        mapped = cls.load_query_data(query, model)
        mapped.train(**QUIET | training | {"plan_kwargs": training.get("plan_kwargs", {}) | FROZEN})
        latents = model.get_latent_representation(), mapped.get_latent_representation()
        found[how] = scores(*latents, labels)
    whole = data.adata.copy()
    cls.setup_anndata(whole, batch_key=data.batch_key)
    together = cls(whole)
    together.train(**QUIET, **training)
    latent = together.get_latent_representation()
    found["trained together"] = scores(latent[~is_query], latent[is_query], labels)
    return found


def by_pca() -> dict[str, float]:
    data = read("kang")
    is_query = (data.adata.obs[data.batch_key] == "stim").to_numpy()
    places = (
        PCA(20, random_state=0).fit(logs(data.adata.X[~is_query])).transform(logs(data.adata.X))
    )
    labels = data.adata.obs["type"].to_numpy()
    return scores(places[~is_query], places[is_query], [labels[~is_query], labels[is_query]])


def main(*seeds: str) -> None:
    quietly()
    rows: dict[str, Any] = {"PCA, 20 components": by_pca()}
    for name, (cls, training) in MODELS.items():
        several = [measure(cls, training, int(seed)) for seed in seeds or "01234"]
        for how in several[0]:
            table = pd.DataFrame([found[how] for found in several])
            spread = {"lowest": table["labels"].min(), "highest": table["labels"].max()}
            rows[f"{name}, {how}"] = {**table.mean(), **spread}
    print(pd.DataFrame(rows).T.round(3).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
