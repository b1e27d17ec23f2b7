"""Minified objects: posteriors in place of counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData
from scipy import sparse
from scvi.data._constants import (
    _ADATA_MINIFY_TYPE_UNS_KEY,
    _SCVI_UUID_KEY,
    _SETUP_METHOD_NAME,
    ADATA_MINIFY_TYPE,
)
from scvi.model.base import BaseMinifiedModeModelClass

from betavi._blocks import ENCODED_CELLS
from betavi._mudata import assembled, copied
from betavi._tables import close_matches
from betavi.data import present_key
from betavi.model.setup.arguments import check_arguments
from betavi.model.setup.mudata import MINIFIED_COLUMNS, minified_fields
from betavi.model.setup.registered import MINIFIED_BETA

if TYPE_CHECKING:
    from typing import NoReturn

    from mudata import MuData
    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel

N_COMPARED = 100
"""Number of cells whose stored posteriors are compared with the model's."""


def minify_adata(
    model: LatentModel,
    minified_data_type: str = ADATA_MINIFY_TYPE.LATENT_POSTERIOR,
    use_latent_qzm_key: str = "X_latent_qzm",
    use_latent_qzv_key: str = "X_latent_qzv",
    beta: float | None = None,
) -> None:
    """Replace the counts of the model's object by posteriors, as scvi-tools does.

    Parameters
    ----------
    minified_data_type, use_latent_qzm_key, use_latent_qzv_key
        See :meth:`scvi.model.base.BaseMinifiedModeModelClass.minify_adata`.
    beta
        The β of the posteriors in ``obsm``. All results of the minified object are at this β. If
        None, the model's own β, or the β of the model's range that is closest to 1.

    Raises
    ------
    ValueError
        If the model was not trained at this β, or infers library sizes. For a model trained on a
        range of β, also if the posteriors in ``obsm`` are not the model's posteriors at this β.

    Examples
    --------
    >>> import betavi, logging, scvi
    >>> scvi.settings.verbosity = logging.WARNING
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, beta=(0.1, 10))
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> posteriors = model.get_latent_representation(return_dist=True, beta=4.0)
    >>> adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = posteriors
    >>> model.minify_adata(beta=4.0)
    >>> float(model.adata.X.sum())
    0.0
    """
    model.refuse_images("minify_adata", "Keep the images.")
    check_arguments({"beta": beta})
    beta = model.module.settled_beta if beta is None else float(beta)
    model.module.check_beta(beta)
    if not model.module.beta_condition.is_fixed:
        _check_posteriors(model, use_latent_qzm_key, beta)
    BaseMinifiedModeModelClass.minify_adata(
        model, minified_data_type, use_latent_qzm_key, use_latent_qzv_key
    )
    model.adata.uns["betavi"] = model.adata.uns.get("betavi", {}) | {MINIFIED_BETA: beta}


def _check_posteriors(model: LatentModel, key: str, beta: float) -> None:
    """Raise a ValueError if stored posteriors are not the model's posteriors at β."""
    some = np.arange(min(N_COMPARED, model.adata.n_obs))
    with model.at_beta(beta):
        found, _ = model.get_latent_representation(indices=some, return_dist=True)
    if not np.allclose(found, np.asarray(model.adata.obsm[key])[some], rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"The posteriors in adata.obsm[{key!r}] are not the model's posteriors at "
            f"beta={beta:g}. Pass the β of these posteriors: minify_adata(beta=...). Or, infer the "
            "posteriors again: get_latent_representation(return_dist=True, beta=...)"
        )


def read_minified(model: LatentModel, minified: AnnOrMuData, minified_data_type: str) -> None:
    """Let the model read a minified object in place of its present object."""
    if isinstance(minified, AnnData):
        fields = model._get_fields_for_adata_minification(minified_data_type)
    else:
        fields = minified_fields(model.modalities)
    minified.uns.pop(_SCVI_UUID_KEY, None)
    manager = model.adata_manager.transfer_fields(minified)
    model._register_manager_for_instance(manager)
    manager.register_new_fields(fields)
    # scvi-tools does not transfer this entry, but reads it when a model is loaded
    manager.registry[_SETUP_METHOD_NAME] = model.registry_[_SETUP_METHOD_NAME]
    model.adata = minified
    model.module.minified_data_type = model.minified_data_type


def refuse_minify(model: LatentModel, *_args: Any, **_kwargs: Any) -> NoReturn:
    """Raise a TypeError: posteriors alone do not suffice for effects."""
    raise TypeError(
        f"{type(model).__name__} has no minified objects, because its methods read counts and conditions. "
        "To store cells without counts, save get_latent_representation()."
    )


def refuse_minify_adata(_model: LatentModel, *_args: Any, **_kwargs: Any) -> NoReturn:
    """Raise a TypeError: use :meth:`minify_mudata`."""
    raise TypeError("JointVI has no minify_adata, because it reads a MuData. Call minify_mudata()")


def minify_mudata(
    model: LatentModel,
    minified_data_type: str = ADATA_MINIFY_TYPE.LATENT_POSTERIOR,
    beta: float | None = None,
    show_progress: bool = True,
) -> None:
    """Replace the counts of each cell by the posteriors from each of its modalities.

    The model still fuses the posteriors from single modalities. Latent positions, translations,
    expression, differential expression and generated cells therefore do not change. ELBO,
    diagnosis, predictability and training need counts, and raise an error.

    The model reads a new object, and the user's object does not change. In the new object, ``obsm``
    of each modality has the posterior means and variances, and ``obs`` the total counts. ``raw`` and
    further layers of the model's modalities are dropped.

    Parameters
    ----------
    minified_data_type
        ``"latent_posterior_parameters"``, or ``"latent_posterior_parameters_with_counts"`` to
        store the counts too.
    beta
        The β of the posteriors. All results of the minified object are at this β. If None, the
        model's own β, or the β of the model's range that is closest to 1.
    show_progress
        Show a progress bar.

    Raises
    ------
    ValueError
        If the type is unknown, the model was not trained at this β, or its object is already
        minified.

    Examples
    --------
    >>> import betavi, logging, scvi
    >>> scvi.settings.verbosity = logging.WARNING
    >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, missing={"adt": 0.5})
    >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    >>> model = betavi.JointVI(mdata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.minify_mudata(show_progress=False)
    >>> float(model.adata["rna"].X.sum()), model.get_latent_representation(modalities="adt").shape
    (0.0, (100, 5))
    """
    model.refuse_images("minify_mudata", "Keep the images.")
    if minified_data_type not in ADATA_MINIFY_TYPE:
        close = close_matches(minified_data_type, list(ADATA_MINIFY_TYPE))
        raise ValueError(f"Unknown `minified_data_type` {minified_data_type!r}. {close}")
    if model.minified_data_type is not None:
        raise ValueError(
            "The model's object is minified already. To minify the data in another way, load the "
            "model with the original object: load(..., adata=...)"
        )
    model._check_if_trained(warn=False)
    check_arguments({"beta": beta})
    beta = model.module.settled_beta if beta is None else float(beta)
    with model.at_beta(beta):
        experts = _experts(model, show_progress)
    keep_counts = minified_data_type == ADATA_MINIFY_TYPE.LATENT_POSTERIOR_WITH_COUNTS
    minified = _with_experts(model, experts, keep_counts)
    minified.uns[_ADATA_MINIFY_TYPE_UNS_KEY] = minified_data_type
    minified.uns["betavi"] = minified.uns.get("betavi", {}) | {MINIFIED_BETA: beta}
    read_minified(model, minified, minified_data_type)


@torch.inference_mode()
def _experts(model: LatentModel, show_progress: bool) -> dict[str, np.ndarray]:
    """Return means and variances by modality, ``(2, n_cells with the modality, n_latent)``."""
    found: dict[str, np.ndarray] = {
        name: np.empty((2, model.adata[name].n_obs, model.module.options.n_latent), np.float32)
        for name in model.modalities
    }
    model.module.eval()
    start = 0
    progress = "Minifying" if show_progress else None
    for tensors in model.minibatches(model.adata, None, ENCODED_CELLS, progress=progress):
        inferred = model.infer(tensors)
        for name, expert in inferred["experts"].items():
            here = tensors[present_key(name)].squeeze(1).cpu().numpy()
            stop = start + len(here)
            rows = model.rows(model.adata, name).position[start:stop][here]
            found[name][0, rows] = expert.mean.cpu().numpy()[here]
            found[name][1, rows] = expert.variance.cpu().numpy()[here]
        start = stop
    return found


def _with_experts(model: LatentModel, experts: dict[str, np.ndarray], keep_counts: bool) -> MuData:
    """Return a new object with posteriors by modality, and with counts if ``keep_counts``."""
    parts = dict(model.adata.mod)
    setup_args = model.registry_["setup_args"]
    for name, (mean, variance) in experts.items():
        old = model.adata[name]
        layer = model.adapter.counts_layer(model.adata, setup_args, name)
        new = old.copy() if keep_counts else _without_counts(old, layer)
        new.obsm[MINIFIED_COLUMNS.mean], new.obsm[MINIFIED_COLUMNS.variance] = mean, variance
        new.obs[MINIFIED_COLUMNS.total] = model.rows(model.adata, name).stored.totals()
        parts[name] = new
    found = copied(assembled(parts)[model.adata.obs_names])
    found.obs = model.adata.obs.copy()
    found.uns = dict(model.adata.uns)
    # the masks of modalities are made anew
    for attribute in ("obsm", "varm", "obsp", "varp"):
        for key, value in getattr(model.adata, attribute).items():
            if key not in model.adata.mod:
                getattr(found, attribute)[key] = value
    return found


def _without_counts(adata: AnnData, layer: str | None) -> AnnData:
    """Return a copy with zeros in place of the counts in ``X`` and in ``layer``."""
    zeros = sparse.csr_matrix(adata.shape, dtype=np.float32)
    layers = {} if layer is None else {layer: zeros.copy()}
    parts = {name: dict(getattr(adata, name)) for name in ("uns", "obsm", "varm", "obsp", "varp")}
    return AnnData(zeros, obs=adata.obs.copy(), var=adata.var.copy(), layers=layers, **parts)
