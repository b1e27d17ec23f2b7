"""Counts without their noise, written into the object that has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scvi import REGISTRY_KEYS, settings
from scvi.utils import track, unsupported_if_adata_minified

from betavi._tables import check_whole, lookup
from betavi.model.at_beta import AtBetaMixin
from betavi.model.covariates import batch_codes
from betavi.model.messages import warn
from betavi.model.setup import untouched_on_failure
from betavi.model.store import Denoised, Place, positions_of
from betavi.module.single import COUNTS
from betavi.nn import observed_log_library
from betavi.train import counts_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anndata import AnnData
    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.likelihoods import Likelihood

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
    """What is to be estimated, of which features, in cells of which size and batches."""

    estimate: str
    features: np.ndarray
    n_samples: int = 1
    size: float | str = "observed"
    batches: tuple[int | None, ...] = (None,)


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


class DenoiseEngine(AtBetaMixin):
    """What both models need to denoise a modality of theirs."""

    _px: Callable[..., Any]
    """Return p(x given z) of z, a minibatch, a modality, log sizes, and a batch to decode as."""

    def _asked(
        self,
        name: str,
        features: np.ndarray,
        estimate: str,
        transform_batch: str | Sequence[str] | None,
        library_size: float | str,
        n_samples: int,
    ) -> Asked:
        lookup(ESTIMATES, estimate, "estimate")
        check_whole("n_samples", n_samples)
        self._check_size(name, library_size)
        if transform_batch is None:
            return Asked(estimate, features, n_samples, library_size)
        if estimate == "posterior" and self.module.likelihoods[name].learns_from_counts:
            warn(
                "A cell's counts say nothing of what it would have shown in another batch: the "
                "decoder's mean is taken, as with estimate='mean'."
            )
        codes = tuple(batch_codes(self.adata_manager, transform_batch))
        return Asked("mean", features, n_samples, library_size, codes)

    def _check_size(self, name: str, size: float | str) -> None:
        if size == "observed":
            return
        if size == "latent":
            if name not in self.module.l_encoder:
                raise ValueError(
                    "The model infers no library size. library_size is 'observed' or a number."
                )
        elif isinstance(size, str) or not size > 0:
            raise ValueError(f"library_size is 'observed', 'latent' or positive, not {size!r}.")
        elif not self.module.likelihoods[name].reads_size:
            raise ValueError(
                f"How much of {name!r} a cell has is decoded, and no library size sets it. Leave "
                "library_size out."
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
        self, name: str, loader: Any, ask: Asked, show_progress: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield means and standard deviations of the features asked for, minibatch by minibatch."""
        self.module.eval()
        for tensors in track(loader, description=f"Denoising {name}", disable=not show_progress):
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
            library: Tensor = inferred["library"]
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
        counts = tensors[name].to(self.device)
        mean, variance = ESTIMATES[ask.estimate](likelihood, px, counts)
        return (mean * scale)[:, ask.features], (variance * scale.square())[:, ask.features]


class DenoiseMixin(DenoiseEngine):
    """``denoise`` of one modality."""

    @unsupported_if_adata_minified
    @torch.inference_mode()
    def denoise(
        self,
        adata: AnnData | None = None,
        layer_added: str | None = "denoised",
        std_layer_added: str | None = None,
        estimate: str = "posterior",
        gene_list: Sequence[str] | None = None,
        transform_batch: str | Sequence[str] | None = None,
        library_size: float | str = "observed",
        n_samples: int = 1,
        batch_size: int | None = None,
        show_progress: bool = True,
    ) -> None:
        """Write expected counts, without the noise of counting, into an object.

        Parameters
        ----------
        adata
            The object; the model's own if None.
        layer_added
            The layer to write; if None, ``X`` is replaced, and counts that were there are kept in
            ``layers["counts"]``, where models find them from then on, also loaded ones.
        std_layer_added
            Write standard deviations too: of the posterior rate, and between draws of z.
        estimate
            ``"posterior"``, what a second measurement of the same cell would expect given z and
            what the first one found; or ``"mean"``, given z alone: what cells like it expect.
        gene_list
            Only these, as a data frame in ``obsm`` of the name of the layer.
        transform_batch
            Decode every cell as if it came from this batch, or the average over several. That is
            always the decoder's mean.
        library_size
            ``"observed"``, each cell's own size, ``"latent"``, the one inferred, or a number.
        n_samples
            Number of draws of z; 1 is the mean of z.
        batch_size
            Cells at once.
        show_progress
            Show a bar.

        Raises
        ------
        KeyError
            If a gene is unknown.
        ValueError
            If a word or a number means nothing, the batch is unknown, the object is minified, or
            ``layers["counts"]`` is taken. The object is as it was.

        References
        ----------
        Huang et al. (2018), SAVER, for the posterior of a rate; Lopez et al. (2018), scVI.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=5)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> model.denoise(std_layer_added="denoised_std", show_progress=False)
        >>> adata.layers["denoised"].shape, bool((adata.layers["denoised_std"] > 0).all())
        ((100, 20), True)
        """
        self._check_if_trained(warn=False)
        # what reading an object writes into it, too
        with untouched_on_failure(self.adata if adata is None else adata):
            adata = self._validate_anndata(adata)
            features = positions_of(adata.var_names, gene_list, "adata")
            ask = self._asked(COUNTS, features, estimate, transform_batch, library_size, n_samples)
            args = self.get_anndata_manager(adata, required=True).registry["setup_args"]
            counts = counts_layer(adata, args["layer"])
            place = Place(adata, counts, layer_added, std_layer_added, gene_list)
            place.check()
            self._tell_batches(adata, ask.batches)
            loader = self._make_data_loader(adata, batch_size=batch_size or settings.batch_size)
            values = Denoised.gathered(
                self._moments(COUNTS, loader, ask, show_progress),
                (adata.n_obs, len(features)),
                std_layer_added is not None,
            )
            place.put(values)

    def _px(
        self,
        z: Tensor,
        tensors: dict[str, Any],
        name: str,  # a model of several modalities has several
        log_size: Tensor,
        transform_batch: int | None = None,
    ) -> Any:
        if self.module.options.given_size:
            tensors = tensors | {REGISTRY_KEYS.SIZE_FACTOR_KEY: log_size.exp()}
        inputs = self.module._get_generative_input(tensors, {"z": z, "library": log_size})
        return self.module.generative(**inputs, transform_batch=transform_batch)["px"]
