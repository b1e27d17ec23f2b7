"""Real perturbation screens, with the arguments of ``EffectVI.setup_anndata``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import scvi

from benchmarks.peers import real_folder
from betavi import EffectVI

if TYPE_CHECKING:
    from anndata import AnnData


def norman() -> tuple[AnnData, dict[str, Any]]:
    adata = anndata.read_h5ad(real_folder() / "norman19_mcfaline23_counts.h5ad")
    return adata[adata.obs["dataset"] == "norman19"].copy(), {"perturbation_key": "condition"}


def mcfaline() -> tuple[AnnData, dict[str, Any]]:
    adata = anndata.read_h5ad(real_folder() / "norman19_mcfaline23_counts.h5ad")
    keys = {"perturbation_key": "condition", "context_key": "cell_type"}
    return adata[adata.obs["dataset"] == "mcfaline23"].copy(), keys


def datlinger() -> tuple[AnnData, dict[str, Any]]:
    adata = anndata.read_h5ad(real_folder() / "datlinger21_scifi_7500x2000.h5ad")
    return adata, {"perturbation_key": "condition"}


def kang_muscat() -> tuple[AnnData, dict[str, Any]]:
    adata = anndata.read_h5ad(real_folder() / "kang_muscat.h5ad")
    keys = {"control": "ctrl", "context_key": "cluster_id", "replicate_key": "sample_id"}
    return adata, {"perturbation_key": "group_id", **keys}


def kang() -> tuple[AnnData, dict[str, Any]]:
    adata = anndata.read_h5ad(real_folder() / "kang_stim_ctrl_2000.h5ad")
    genes = np.argsort(-np.asarray(adata.X.sum(axis=0)).ravel())[:2000]
    return adata[:, np.sort(genes)].copy(), {"perturbation_key": "stim", "control": "ctrl"}


def macseq() -> tuple[AnnData, dict[str, Any]]:
    adata = anndata.read_h5ad(real_folder() / "macseq_pmmsq033_308.h5ad")
    adata = adata[adata.obs["Treatment_1"] != "Media"].copy()
    keys = {"control": "DMSO", "dose_key": "dose_uM"}
    return adata, {"perturbation_key": "Treatment_1", **keys}


def hypoxia() -> tuple[AnnData, dict[str, Any]]:
    """Read bulk samples of a 2 x 2 of oxygen and drug, with four experiments as replicates."""
    adata = anndata.read_h5ad(real_folder() / "bulk_hypoxia_molidustat.h5ad")
    adata = adata[:, np.asarray((adata.X >= 10).sum(axis=0)).ravel() >= 4].copy()
    is_low, is_treated = adata.obs["oxygen"] == "0.5%", adata.obs["treatment"] == "BAY"
    adata.obs["condition"] = np.select(
        [is_low & is_treated, is_low, is_treated], ["hypoxia+BAY", "hypoxia", "BAY"], "control"
    )
    adata.obs["experiment"] = adata.obs["experiment"].astype(str)
    keys = {"replicate_key": "experiment", "batch_key": "experiment"}
    return adata, {"perturbation_key": "condition", **keys}


def set_up(adata: AnnData, keys: dict[str, Any]) -> EffectVI:
    """Return a model that is not trained."""
    EffectVI.setup_anndata(adata, **keys)
    scvi.settings.seed = 0
    return EffectVI(adata)
