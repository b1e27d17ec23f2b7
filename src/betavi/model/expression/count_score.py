"""Probabilities of counts, comparable between likelihoods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.utils import unsupported_if_adata_minified

from betavi._blocks import SCORED_CELLS
from betavi.data import present_key
from betavi.diagnostics import CountTerms, ScoreSums
from betavi.kernels import dense
from betavi.model.core.beta import takes_beta
from betavi.model.expression.decode import suitable_modality
from betavi.model.setup.arguments import check_arguments
from betavi.model.setup.selection import cells_named
from betavi.module.estimates import latent_log_ratio
from betavi.nn import Point
from betavi.objective import rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel, Tensors


@takes_beta
@torch.inference_mode()
@unsupported_if_adata_minified
def score_counts(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 10,
    batch_size: int = SCORED_CELLS,
    modalities: Sequence[str] | str | None = None,
) -> Any:
    """Score the model by the probability that it gives to the counts.

    Scores of all likelihoods are comparable, see :func:`betavi.metrics.compare_likelihoods`. The
    likelihoods ``"zinb"``, ``"nb"`` and ``"poisson"`` give probabilities of counts. The densities
    ``"lognormal"`` and ``"normal"`` are integrated from 0.5 below to 0.5 above each count. Each
    modality is scored alone: only in the cells that have it, and with z inferred from this modality
    only.

    Parameters
    ----------
    adata, indices, batch_size
        See :meth:`get_latent_representation`.
    n_samples
        Number of posterior samples per cell.
    modalities
        Modalities to score. If None, all modalities.

    Returns
    -------
    A :class:`betavi.diagnostics.CountScore`: scores in nats per cell, and the predicted share of
    zeros, mean and variance of each gene. With several modalities, a dictionary of scores. With the
    likelihood ``"bernoulli"``, only the rate, ``detection`` and the zeros are not NaN.

    Raises
    ------
    ValueError
        If no cell has the modality, the values are not integers, or the object is minified.

    References
    ----------
    Burda et al. (2016), Importance weighted autoencoders.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, gene_likelihood="lognormal")
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> score = model.score_counts()
    >>> score.predicted.zeros.shape
    (20,)
    """
    adata = model._validate_anndata(adata)
    names = model.named_modalities(modalities)
    remedy = (
        "Pass other `modalities`. Compare likelihoods of images by `get_elbo`, in nats per image."
    )
    model.refuse_images("score_counts", remedy, names)
    sums = {name: ScoreSums() for name in names}
    for name in sums:
        has = model.adapter.has(adata, name)
        if not has[slice(None) if indices is None else np.asarray(indices)].any():
            raise ValueError(
                f"None of the cells has the modality {name!r}, so its counts cannot be scored. "
                "Choose other cells, or name other `modalities`."
            )
    for tensors in model.minibatches(adata, indices, batch_size):
        for name, score_sums in sums.items():
            measured = _measured_cells(tensors, name)
            counts = dense(measured[name]).cpu().double().numpy()
            if (counts != counts.round()).any():
                raise ValueError(
                    "The registered values are not integers, but only counts have probabilities. "
                    "Register the layer that holds the counts: setup_anndata(..., layer=...)"
                )
            if len(counts):
                terms = _count_terms(model, model.masked(measured, [name]), name, n_samples)
                score_sums.add(counts, terms)
    return model.adapter.bare({name: score_sums.score() for name, score_sums in sums.items()})


@unsupported_if_adata_minified
def raw_counts(
    model: LatentModel, indices: Sequence[int] | None = None, modality: str | None = None
) -> Any:
    """Return the registered counts of cells, ``(n_cells, n_features)``, sparse or dense as stored.

    Cells are in the order of ``indices``. A cell that lacks the modality has zeros.

    Parameters
    ----------
    indices
        Names or positions of cells, or a mask. If None, all cells.
    modality
        Modality to read. Necessary if the model has several modalities.

    Raises
    ------
    ValueError
        If the object is minified, or the modality is unclear.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> betavi.BetaVI(adata).raw_counts([3, 1]).shape
    (2, 20)
    """
    check_arguments({"indices": indices, "modality": modality})
    name = suitable_modality(model, modality, lambda _: True)
    model.refuse_images("raw_counts", "The images are in `obsm`.", [name])
    adata = model._validate_anndata(None)
    everyone = slice(None) if indices is None else indices
    return model.rows(adata, name)[cells_named(adata.obs_names, everyone, "indices")]


def _measured_cells(tensors: Tensors, name: str) -> Tensors:
    """Return the cells of a minibatch that have a modality."""
    if (key := present_key(name)) not in tensors:
        return tensors
    has = tensors[key].squeeze(1)
    return {key: value if value is None else value[has] for key, value in tensors.items()}


def _count_terms(model: LatentModel, tensors: Tensors, name: str, n_samples: int) -> CountTerms:
    """Return the terms of the score of a minibatch."""
    inferred = model.infer(tensors, n_samples)
    likelihood, size = model.likelihood(name), model.module.log_sizes(tensors, inferred, name)
    px: Any = model.decode(inferred["z"], tensors, name, size)
    qz, pz, u = inferred["qz"], model.module.current_prior(), inferred["u"]
    counts = dense(tensors[name]).to(u.device)
    libraries = model.module.library_priors(tensors)
    if isinstance(qz, Point):
        # the rate of a point is infinite
        log_ratio = rates = torch.full(u.shape[:-1], torch.inf)
    else:
        log_ratio = latent_log_ratio(inferred, {"pz": pz, "pl": libraries})
        rates = rate(qz, pz, u)
    library_rate = torch.zeros(len(counts), device=u.device)
    if name in inferred["ql"]:
        library_rate = rate(inferred["ql"][name], libraries[name], inferred["library"][name])
    # a likelihood of detection has no probability of a count
    zero_or_nan = torch.zeros_like(counts) if likelihood.is_of_counts else torch.nan
    per_count = {
        "log_mass": likelihood.log_mass(px, counts) + zero_or_nan,
        "log_detection": likelihood.log_detection(px, counts),
        "zeros": likelihood.log_mass(px, torch.zeros_like(counts)).exp(),
        "mean": px.mean + zero_or_nan,
        "variance": px.variance + zero_or_nan,
    }
    terms = {word: value.reshape(n_samples, *counts.shape) for word, value in per_count.items()}
    terms["log_ratio"] = log_ratio.reshape(n_samples, len(counts))
    terms["library_rate"] = library_rate
    terms["rate"] = rates if rates.ndim == 1 else rates.mean(dim=0)
    return CountTerms(**{word: v.cpu().double().numpy() for word, v in terms.items()})
