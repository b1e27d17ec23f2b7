"""What counts would be without their noise, minibatch by minibatch."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.utils import track

from betavi._tables import check_whole, lookup
from betavi.model.core._transition import Transition
from betavi.model.core.covariates import batch_codes
from betavi.model.setup.messages import warn
from betavi.nn import observed_log_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.likelihoods import Likelihood
    from betavi.model.denoising.job import Wanted

Moments = tuple["Tensor", "Tensor"]


def _of_mean(likelihood: Likelihood, px: Any, _counts: Tensor) -> Moments:
    mean = likelihood.expected(px)
    return mean, torch.zeros_like(mean)


def _of_posterior(likelihood: Likelihood, px: Any, counts: Tensor) -> Moments:
    return likelihood.posterior(px, counts)


ESTIMATES: dict[str, Callable[[Likelihood, Any, Tensor], Moments]] = {
    "posterior": _of_posterior,
    "mean": _of_mean,
}
"""What a denoised value is given z, by the user's word: its mean, and its variance."""


class Asked(NamedTuple):
    """What is to be estimated, at which β, of which features (None: all), of which size and batches."""

    estimate: str
    features: np.ndarray | None
    n_samples: int = 1
    size: float | str = "observed"
    batches: tuple[int | None, ...] = (None,)
    beta: float = 1.0


class RunningMoments:
    """Mean and variance of draws that each have a mean and a variance, one draw at a time."""

    def __init__(self) -> None:
        self.n = 0
        self.mean: Tensor | float = 0.0
        self._between: Tensor | float = 0.0
        self._within: Tensor | float = 0.0

    def add(self, mean: Tensor, variance: Tensor) -> None:
        """Take a draw into account (Welford, 1962)."""
        self.n += 1
        off = mean - self.mean
        self.mean = self.mean + off / self.n
        self._between = self._between + off * (mean - self.mean)
        self._within = self._within + variance

    @property
    def variance(self) -> Tensor | float:
        """Mean variance of the draws, plus that between them."""
        return self._within / self.n + self._between / max(self.n - 1, 1)


class DenoiseEngine(Transition):
    """What both models need to denoise a modality of theirs."""

    def _asked(self, name: str, features: np.ndarray | None, wanted: Wanted) -> Asked:
        lookup(ESTIMATES, wanted.estimate, "estimate")
        check_whole("n_samples", wanted.n_samples)
        self._check_size(name, wanted.library_size)
        ask = Asked(
            wanted.estimate,
            features,
            wanted.n_samples,
            wanted.library_size,
            beta=self.module.dial.beta,
        )
        if wanted.transform_batch is None:
            return ask
        if wanted.estimate == "posterior" and self.module.likelihoods[name].learns_from_counts:
            warn(
                "A cell's counts say nothing of what it would have shown in another batch: the "
                "decoder's mean is taken, as with estimate='mean'."
            )
        codes = tuple(batch_codes(self.adata_manager, wanted.transform_batch))
        return ask._replace(estimate="mean", batches=codes)

    def _check_size(self, name: str, size: float | str) -> None:
        if size == "observed":
            return
        if size == "latent":
            if name not in self.module.l_encoder:
                raise ValueError(
                    "The model infers no library size. library_size is 'observed' or a number."
                )
        elif not isinstance(size, Real) or not size > 0:
            raise ValueError(f"library_size is 'observed', 'latent' or positive, not {size!r}.")
        elif not self.module.likelihoods[name].reads_size:
            raise ValueError(
                f"How much of {name!r} a cell has is decoded, and no library size sets it. Leave "
                "library_size out, or name the other modalities: modalities=."
            )

    def _tell_batches(self, adata: AnnOrMuData, batches: tuple[int | None, ...]) -> None:
        manager = self.get_anndata_manager(adata, required=True)
        codes = np.unique(manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY))
        if batches == (None,) and len(codes) > 1:
            warn(
                f"Each cell is denoised in its own of {len(codes)} batches, so that their effects "
                "stay. transform_batch=[...] averages over batches."
            )

    def _moments(
        self, name: str, loader: Any, ask: Asked, seeds: Iterator[int], show_progress: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield means and standard deviations of the features asked for, minibatch by minibatch."""
        self.module.eval()
        devices = [] if self.device.type == "cpu" else [self.device]
        likelihood = self.module.likelihoods[name]
        for tensors in track(loader, description=f"Denoising {name}", disable=not show_progress):
            # a minibatch has the same draws whether or not those before it were computed here
            with likelihood.only(ask.features), torch.random.fork_rng(devices):
                torch.manual_seed(next(seeds))
                running = self._running(name, tensors, ask)
            yield tuple(  # type: ignore[misc]  # mypy does not count the items of a generator
                torch.as_tensor(values).cpu().numpy()
                for values in (running.mean, torch.as_tensor(running.variance).sqrt())
            )

    def _running(self, name: str, tensors: dict[str, Any], ask: Asked) -> RunningMoments:
        module, running = self.module, RunningMoments()
        inputs = module._get_inference_input(tensors)
        inferred = module.inference(**inputs, n_samples=ask.n_samples)
        if ask.n_samples == 1:
            # the most that one point can say
            z = module.latent.transform(inferred["qz"].mean)[None]
        else:
            z = inferred["z"]
        own = self._own_size(name, tensors, inferred, ask)
        for draw, position in enumerate(z):
            parts = [
                self._estimated(name, tensors, position, own[draw % len(own)], code, ask)
                for code in ask.batches
            ]
            mean, variance = (
                torch.stack(values).mean(dim=0) for values in zip(*parts, strict=True)
            )
            running.add(mean, variance)
        return running

    def _own_size(
        self, name: str, tensors: dict[str, Any], inferred: dict[str, Any], ask: Asked
    ) -> Tensor:
        """Return log sizes of the cells, ``(n_draws or 1, n_cells, 1)``."""
        if self.module.options.given_size:
            return tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY].to(self.device).log()[None]
        if ask.size == "latent":
            library: Tensor = inferred["library"][name]
            return library if ask.n_samples > 1 else library[None]
        return observed_log_library(tensors[name].to(self.device))[None]

    def _estimated(
        self,
        name: str,
        tensors: dict[str, Any],
        z: Tensor,
        own: Tensor,
        code: int | None,
        ask: Asked,
    ) -> Moments:
        likelihood: Any = self.module.likelihoods[name]
        size, scale = own, torch.ones_like(own)
        if not isinstance(ask.size, str):
            wanted = torch.full_like(own, ask.size).log()
            if ask.estimate == "posterior" and likelihood.learns_from_counts:
                # the count is that of a cell of its own size, and the rate is brought to the other
                scale = (wanted - own).exp()
            else:
                size = wanted
        px = self._px(z, tensors, name, size, code)
        counts = likelihood.of_chosen(tensors[name].to(self.device))
        mean, variance = ESTIMATES[ask.estimate](likelihood, px, counts)
        return mean * scale, variance * scale.square()
