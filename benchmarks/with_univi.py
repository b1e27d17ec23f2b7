"""Translation of RNA into protein by UniVI, for ``python -m benchmarks.joint``.

UniVI needs ``pip install univi``. The configuration is from its quickstart, with the quickstart's
encoder for the smaller assay. RNA values are z-scores of log-normalised counts, as in the
quickstart. Protein values are z-scores of the log counts on which predictions are scored. UniVI has
no intervals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scanpy as sc
from anndata import AnnData
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from univi import UniVIMultiModalVAE

HELD_OUT = 0.1
"""Share of the cells that are used for early stopping."""


class Found(NamedTuple):
    """Predicted log counts of the hidden cells, and latent positions."""

    mean: np.ndarray
    seen: np.ndarray
    hidden: dict[str, np.ndarray]


def univi(rna: AnnData, log_protein: np.ndarray, hidden: np.ndarray, seed: int) -> Found:
    """Fit to the other cells, and predict the protein of the hidden cells."""
    from univi.evaluation import cross_modal_predict, encode_adata, encode_fused_adata_pair

    normal = rna.copy()
    sc.pp.normalize_total(normal, target_sum=1e4)
    sc.pp.log1p(normal)
    scalers = (
        StandardScaler().fit(normal.X[~hidden].toarray()),
        StandardScaler().fit(log_protein[~hidden]),
    )
    values = {
        "rna": scalers[0].transform(normal.X.toarray()),
        "prot": scalers[1].transform(log_protein),
    }

    def part(cells: np.ndarray) -> dict[str, AnnData]:
        return {
            name: AnnData(matrix[cells].astype(np.float32), obs=rna.obs[[]].iloc[cells].copy())
            for name, matrix in values.items()
        }

    order = np.random.default_rng(seed).permutation(np.flatnonzero(~hidden))
    n_watched = int(HELD_OUT * len(order))
    model = _fitted(part(order[n_watched:]), part(order[:n_watched]))
    seen, unseen = part(np.flatnonzero(~hidden)), part(np.flatnonzero(hidden))
    alone = {
        name: encode_adata(model, unseen[name], modality=name, latent="modality_mean")
        for name in values
    }
    predicted = cross_modal_predict(model, unseen["rna"], src_mod="rna", tgt_mod="prot")
    return Found(
        scalers[1].inverse_transform(predicted),
        encode_fused_adata_pair(model, seen)["Z_fused"],
        alone | {"both": encode_fused_adata_pair(model, unseen)["Z_fused"]},
    )


def _fitted(train: dict[str, AnnData], watched: dict[str, AnnData]) -> UniVIMultiModalVAE:
    from univi import ModalityConfig, TrainingConfig, UniVIConfig, UniVIMultiModalVAE, UniVITrainer
    from univi.workflows import make_loader

    wide, narrow = ([512, 256, 128], [128, 256, 512]), ([128, 64], [64, 128])
    model = UniVIMultiModalVAE(
        UniVIConfig(
            latent_dim=30, beta=1.25, gamma=4.35, encoder_dropout=0.1, decoder_dropout=0.05,
            kl_anneal_start=50, kl_anneal_end=85, align_anneal_start=75, align_anneal_end=110,
            modalities=[
                ModalityConfig(name, train[name].n_vars, *layers, likelihood="gaussian")
                for name, layers in (("rna", wide), ("prot", narrow))
            ],
        )
    )  # fmt: skip
    UniVITrainer(
        model,
        train_loader=make_loader(train, batch_size=256, shuffle=True, drop_last=True),
        val_loader=make_loader(watched, batch_size=1024),
        train_cfg=TrainingConfig(
            n_epochs=400, lr=1e-3, weight_decay=1e-4, early_stopping=True, patience=50,
            best_epoch_warmup=110,
        ),
    ).fit()  # fmt: skip
    return model
