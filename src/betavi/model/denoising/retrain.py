"""Models with the settings of an existing model, trained on remaining or shuffled molecules."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData

from betavi import _blocks
from betavi.data import AlignedRows
from betavi.diagnostics import molecules
from betavi.model.denoising.estimate import DenoiseOptions, estimates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scipy import sparse
    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel


def molecule_counts(model: LatentModel) -> dict[str, sparse.csr_matrix]:
    """Return the counts of the modalities with molecule counts, in the order of their rows.

    Raises a ValueError if no modality has molecule counts, or values are not whole numbers.
    """
    names = model.modalities
    # BetaVI's likelihood is an argument of the constructor, so candidates may have another one
    if "likelihoods" in model.registry_["setup_args"]:
        parts = {name: model.likelihood(name) for name in names}
        names = [n for n in names if parts[n].is_of_counts and parts[n].of_whole_numbers]
    if not names:
        raise ValueError(
            "No modality has molecule counts, but this method holds out or shuffles molecules. "
            "Register a modality with counts and a likelihood of counts, such as 'nb'."
        )
    return {name: molecules(_counts(model, name)) for name in names}


def trained_on(
    model: LatentModel,
    counts: Mapping[str, sparse.csr_matrix],
    arguments: dict[str, Any],
    show_progress: bool,
    train_kwargs: dict[str, Any],
) -> LatentModel:
    """Return a new model with the same settings, trained on other counts of the same cells.

    If the given model was trained, the default of ``max_epochs`` is the same number of epochs.
    """
    with warnings.catch_warnings():
        # the same warnings were shown at registration
        warnings.simplefilter("ignore")
        adata = _with_counts(model, counts)
    new = type(model)(adata, **model._module_kwargs | arguments)
    options: dict[str, Any] = {"enable_progress_bar": show_progress}
    history = getattr(model, "history_", None) or {}
    if model.is_trained and "elbo_train" in history:
        # this entry covers all calls of train(), while others may cover only one
        options["max_epochs"] = len(history["elbo_train"])
    new.train(**options | train_kwargs)
    return new


@torch.inference_mode()
def denoised_moments(
    model: LatentModel, name: str, estimate: str, n_samples: int = 1, show_progress: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield denoised values and standard deviations, by blocks of the cells with a modality."""
    size = _blocks.ENCODED_CELLS
    options = DenoiseOptions(estimate, n_samples, batch_size=size, show_progress=show_progress)
    yield from estimates(model, model.adata, name, options)


def _counts(model: LatentModel, name: str) -> Any:
    """Return the registered counts of a modality, in the order of its rows."""
    rows = model.rows(model.adata, name)
    rows = rows.stored if isinstance(rows, AlignedRows) else rows
    return rows[np.arange(rows.shape[0])]


def _with_counts(model: LatentModel, counts: Mapping[str, sparse.csr_matrix]) -> AnnOrMuData:
    """Return a registered copy of the model's object with other counts of some modalities."""
    parts = {}
    for name in model.modalities:
        old = model.adapter.part(model.adata, name)
        values = counts[name] if name in counts else _counts(model, name)
        parts[name] = AnnData(values, obs=old.obs[[]].copy(), var=old.var[[]].copy())
    data = model.adapter.together(parts, model.adata.obs)
    model.adapter.register(type(model), data, dict(model.adata_manager.registry["setup_args"]))
    return data
