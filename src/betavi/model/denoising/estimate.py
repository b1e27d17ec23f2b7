"""Denoised estimates, computed by minibatches."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scvi import REGISTRY_KEYS, settings

from betavi._tables import lookup
from betavi.data import AlignedRows
from betavi.model.core.covariates import batch_codes
from betavi.model.setup.messages import warn
from betavi.nn import observed_log_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.likelihoods import Likelihood
    from betavi.model.core.latent_model import LatentModel, Tensors

Moments = tuple["Tensor", "Tensor"]


def _decoder_mean(likelihood: Likelihood, px: Any, _counts: Tensor) -> Moments:
    mean = likelihood.expected(px)
    return mean, torch.zeros_like(mean)


ESTIMATES: dict[str, Callable[[Likelihood, Any, Tensor], Moments]] = {
    "posterior": lambda likelihood, px, counts: likelihood.posterior(px, counts),
    "mean": _decoder_mean,
}
"""Functions by the value of ``estimate``. Each returns mean and variance of a value given z."""


class DenoiseOptions(NamedTuple):
    """Arguments of ``denoise``, with the codes of ``batches`` and the β.

    A code of None means each cell's own batch.
    """

    estimate: str = "posterior"
    n_samples: int = 1
    library_size: float | str = "observed"
    transform_batch: str | Sequence[str] | None = None
    batch_size: int | None = None
    show_progress: bool = False
    batches: tuple[int | None, ...] = (None,)
    beta: float = 1.0


def validated_options(
    model: LatentModel, adata: AnnOrMuData, names: Sequence[str], options: DenoiseOptions
) -> DenoiseOptions:
    """Validate options for some modalities, and add the β and the codes of batches.

    Raises a ValueError if an option is invalid or a batch is unknown.
    """
    lookup(ESTIMATES, options.estimate, "estimate")
    for name in names:
        _check_size(model, name, options.library_size)
    options = options._replace(beta=model.module.beta_condition.beta)
    if options.transform_batch is None:
        codes = model.manager(adata).get_from_registry(REGISTRY_KEYS.BATCH_KEY)
        if (n_batches := len(np.unique(codes))) > 1:
            warn(
                f"Cells are denoised in their own batches ({n_batches}), so batch effects remain. "
                "Use transform_batch=[...] to average over batches."
            )
        return options
    batches = tuple(batch_codes(model.adata_manager, options.transform_batch))
    uses_counts = any(model.likelihood(name).learns_from_counts for name in names)
    if options.estimate == "posterior" and uses_counts:
        warn(
            "`transform_batch` needs the decoder's mean, because observed counts are only "
            "informative about their own batch. Using estimate='mean'."
        )
    return options._replace(estimate="mean", batches=batches)


def cells_with(model: LatentModel, adata: AnnOrMuData, name: str) -> np.ndarray:
    """Return the positions of the cells that have a modality, in the order of its rows."""
    rows = model.rows(adata, name)
    return rows.cells if isinstance(rows, AlignedRows) else rows.position


def estimates(
    model: LatentModel,
    adata: AnnOrMuData,
    name: str,
    options: DenoiseOptions,
    seed: int = 0,
    features: np.ndarray | None = None,
    share: slice = slice(None),
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield means and standard deviations, by minibatch, of the cells that have a modality.

    ``features`` are positions. None means all features. ``seed`` is the seed of the first
    minibatch. ``share`` is a part of the cells that starts at a minibatch.
    """
    likelihood, cells = model.likelihood(name), cells_with(model, adata, name)[share]
    first = (share.start or 0) // (options.batch_size or settings.batch_size)
    if not len(cells):
        empty = np.zeros((0, len(model.features(name) if features is None else features)))
        yield empty, empty
        return
    progress = f"Denoising {name}" if options.show_progress else None
    minibatches = model.minibatches(adata, cells, options.batch_size, progress=progress)
    for number, tensors in enumerate(minibatches, first):
        with likelihood.only(features), model.seeded(seed + number):
            mean, std = moments(model, tensors, name, options)
        yield mean.cpu().numpy(), std.cpu().numpy()


def moments(model: LatentModel, tensors: Tensors, name: str, options: DenoiseOptions) -> Moments:
    """Return mean and standard deviation over posterior samples and batches, which are not stored.

    Both are ``(n_cells, n_features)``. The variance is the mean variance of the samples plus the
    variance between them (Welford, 1962).
    """
    likelihood, inferred = model.likelihood(name), model.infer(tensors, options.n_samples)
    is_one = options.n_samples == 1
    z = model.module.latent.transform(inferred["qz"].mean)[None] if is_one else inferred["z"]
    sizes, scales = _sizes(model, tensors, inferred, name, options)
    counts = likelihood.of_chosen(tensors[name].to(model.device))
    mean = between = within = torch.zeros((), device=z.device)
    for n, position in enumerate(z):
        size, scale = sizes[n % len(sizes)], scales[n % len(sizes)]
        parts = [
            ESTIMATES[options.estimate](
                likelihood, model.decode(position, tensors, name, size, code), counts
            )
            for code in options.batches
        ]
        value, variance = (torch.stack(values).mean(dim=0) for values in zip(*parts, strict=True))
        difference = value * scale - mean
        mean = mean + difference / (n + 1)
        between = between + difference * (value * scale - mean)
        within = within + variance * scale.square()
    return mean, (within / len(z) + between / max(len(z) - 1, 1)).sqrt()


def _sizes(
    model: LatentModel,
    tensors: Tensors,
    inferred: dict[str, Any],
    name: str,
    options: DenoiseOptions,
) -> tuple[Tensor, Tensor]:
    """Return log sizes to decode at and factors of estimates, ``(n_samples or 1, n_cells, 1)``."""
    if model.module.options.given_size:
        own = tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY].to(model.device).log()[None]
    elif options.library_size == "latent":
        own = inferred["library"][name]
        own = own if options.n_samples > 1 else own[None]
    else:
        own = observed_log_library(tensors[name].to(model.device))[None]
    if isinstance(options.library_size, str):
        return own, torch.ones_like(own)
    requested = torch.full_like(own, float(options.library_size)).log()
    if options.estimate == "posterior" and model.likelihood(name).learns_from_counts:
        # the count was observed at the cell's own size, so only the estimated rate is rescaled
        return own, (requested - own).exp()
    return requested, torch.ones_like(own)


def _check_size(model: LatentModel, name: str, size: float | str) -> None:
    is_number = isinstance(size, Real) and 0 < size < math.inf
    if not is_number and not (isinstance(size, str) and size in ("observed", "latent")):
        raise ValueError(f"`library_size` must be 'observed', 'latent' or positive, not {size!r}.")
    if size == "latent" and name not in model.module.l_encoder:
        raise ValueError(
            "The model infers no library size. Pass library_size='observed' or a number."
        )
    if is_number and not model.likelihood(name).reads_size:
        raise ValueError(
            f"`library_size` cannot set the total of the modality {name!r}, because this total is "
            "decoded from z. Leave `library_size` out, or choose other modalities with "
            "`modalities`."
        )
