"""Models like an existing one, trained on counts that were thinned or shuffled."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData

from betavi._blocks import ENCODED_CELLS
from betavi.data import AlignedRows
from betavi.diagnostics import molecules
from betavi.model.denoising.estimate import DenoiseOptions, estimates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scipy import sparse
    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel


def molecule_counts(model: LatentModel) -> dict[str, sparse.csr_matrix]:
    """Return the counts of the modalities whose molecules are counted, in the order of their rows.

    Raises
    ------
    ValueError
        If there are none, or values are no whole numbers.
    """
    names = model.modalities
    # where the likelihood is an argument of the constructor, another one may be tried
    if "likelihoods" in model.registry_["setup_args"]:
        parts = {name: model.likelihood(name) for name in names}
        names = [
            name for name in names if parts[name].is_of_counts and parts[name].of_whole_numbers
        ]
    if not names:
        raise ValueError("No modality has counts of molecules: there is nothing to hold out.")
    return {name: molecules(_counts(model, name)) for name in names}


def trained_on(
    model: LatentModel,
    counts: Mapping[str, sparse.csr_matrix],
    arguments: dict[str, Any],
    show_progress: bool,
    train_kwargs: dict[str, Any],
) -> LatentModel:
    """Return a model like this one, trained on other counts of the same cells and features.

    It is trained for as many epochs as this one, if that was trained and nothing else is said.
    """
    with warnings.catch_warnings():
        # what is odd of the counts was said when they were registered
        warnings.simplefilter("ignore")
        like = _with_counts(model, counts)
    new = type(model)(like, **model._module_kwargs | arguments)
    options: dict[str, Any] = {"enable_progress_bar": show_progress}
    history = getattr(model, "history_", None) or {}
    if model.is_trained and "elbo_train" in history:
        # of all calls of train(), which other entries may be of the first or the last
        options["max_epochs"] = len(history["elbo_train"])
    new.train(**options | train_kwargs)
    return new


@torch.inference_mode()
def expected_counts(
    model: LatentModel, name: str, estimate: str, n_samples: int = 1, show_progress: bool = False
) -> Iterator[np.ndarray]:
    """Yield denoised values of the cells that have a modality, a block at a time."""
    options = DenoiseOptions(
        estimate, n_samples, batch_size=ENCODED_CELLS, show_progress=show_progress
    )
    for mean, _ in estimates(model, model.adata, name, options):
        yield mean


def _counts(model: LatentModel, name: str) -> Any:
    """Return the registered counts of a modality, in its own order."""
    rows = model.rows(model.adata, name)
    rows = rows.rows if isinstance(rows, AlignedRows) else rows
    return rows[np.arange(rows.shape[0])]


def _with_counts(model: LatentModel, counts: Mapping[str, sparse.csr_matrix]) -> AnnOrMuData:
    """Return an object like the model's with other counts of some modalities, set up."""
    parts = {}
    for name in model.modalities:
        old = model.adapter.part(model.adata, name)
        values = counts[name] if name in counts else _counts(model, name)
        parts[name] = AnnData(values, obs=old.obs[[]].copy(), var=old.var[[]].copy())
    data = model.adapter.together(parts, model.adata.obs)
    model.adapter.register(type(model), data, dict(model.adata_manager.registry["setup_args"]))
    return data
