"""Labels carried to cells of a batch that a model has not seen, by mapping them onto it.

Control cells of Kang et al. are the reference, cells stimulated by interferon the query; a label is
that of most of the 15 nearest control cells. Beside both packages' mapping, both trained on all cells at
once, and principal components of log counts, in which nothing is done about the batch.
``python -m benchmarks.query [seed ...]``, five minutes a seed; seeds 0 to 4 if none is named, because a
type that lies between two others falls to one of them by chance: means over seeds, and the lowest
and highest share of right labels.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import scvi
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from benchmarks.missing_middle import logs
from benchmarks.peers import AS_SCVI, quietly
from benchmarks.realism import read
from betavi import BetaVI

N_NEIGHBORS = 15
QUIET: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False}
FROZEN = {"weight_decay": 0.0}
"""Of a query's training: what is frozen is not to shrink either."""

HOW: dict[str, dict[str, Any]] = {
    "mapped": {},
    "mapped, the encoder reads the batch": {
        "encode_covariates": True, "use_layer_norm": "both", "use_batch_norm": "none"
    },
}  # fmt: skip
"""What of a new batch can be learned. Where the encoder does not read it, only the decoder learns."""


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
"""Models, and how they are trained: by their defaults if nothing is said."""


def scores(reference: np.ndarray, query: np.ndarray, labels: list[np.ndarray]) -> dict[str, float]:
    """Return the share of right labels, and how evenly batches are mixed among neighbours."""
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
    """Return the scores of one seed by what is done."""
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
