"""Images whose fine details are predicted from their coarse structure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from betavi.likelihoods._base import get_normalized
from betavi.likelihoods._details import DetailNetwork
from betavi.likelihoods._haar import HaarBasis, doubled
from betavi.likelihoods._image import SMALLEST_NOISE, ImageLikelihood

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.types import _size

N_DRAWS = 256
"""Draws from which the variance of pixels is estimated."""


class MultiscaleNormal(Distribution):
    """Normal images, drawn from coarse to fine.

    The coarsest image is normal around that of the decoder's image. The details of each scale are
    normal, with a mean and a noise that depend on the coarser image. An image and its coarsest image
    with all details are a rotation of each other, so the density is exact.

    The log-probability of grey levels is that of :class:`ImageNormal`, a mean over the quantisation
    step. The networks read the grey levels themselves.

    ``loc``: image of the decoder, ``(..., n_cells, n_pixels)``. ``log_noise``: log standard deviation
    of each coefficient without its surroundings, broadcastable to ``loc``. ``networks``: from coarse
    to fine.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "log_noise": constraints.real}
    support = constraints.real
    get_normalized = get_normalized

    def __init__(
        self,
        loc: Tensor,
        log_noise: Tensor,
        step: float,
        basis: HaarBasis,
        networks: Sequence[DetailNetwork],
    ) -> None:
        self.loc, self.log_noise, self.step = loc, log_noise, step
        self.basis, self.networks = basis, networks
        super().__init__(loc.shape, validate_args=False)

    def _deviation(self, log_noise: Tensor) -> Tensor:
        return ((2 * log_noise).exp() + (SMALLEST_NOISE * self.step) ** 2).sqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return terms of the log-probability of grey levels, ``(..., n_cells, n_pixels)``."""
        coarse, details = self.basis.pyramid(value.expand_as(self.loc))
        of_decoder, details_of_decoder = self.basis.pyramid(self.loc)
        first, *others = self.basis.parts(self.log_noise)
        noises, log_noises = [coarse[0] - of_decoder[0]], [first.expand_as(coarse[0])]
        for level, network in enumerate(self.networks):
            mean, change = network(coarse[level], coarse[level] - of_decoder[level])
            noises.append(details[level] - details_of_decoder[level] - mean)
            log_noises.append(others[level] + change)
        noise, log_noise = (torch.cat([x.flatten(-3) for x in y], -1) for y in (noises, log_noises))
        deviation = self._deviation(log_noise)
        constant = deviation.log() + math.log(2 * math.pi) / 2
        within_step = (self.step / deviation).square() / 24
        return math.log(self.step) - constant - within_step - (noise / deviation).square() / 2

    def _from_coarse_to_fine(self, draw: Callable[[Tensor], Tensor]) -> Tensor:
        """Return an image, with ``draw`` of each standard deviation."""
        of_decoder, details_of_decoder = self.basis.pyramid(self.loc)
        first, *others = self.basis.parts(self.log_noise)
        image = of_decoder[0] + draw(self._deviation(first).expand_as(of_decoder[0]))
        for level, network in enumerate(self.networks):
            mean, change = network(image, image - of_decoder[level])
            details = details_of_decoder[level] + mean
            image = doubled(image, details + draw(self._deviation(others[level] + change)))
        return image.flatten(-3)

    @property
    def mean(self) -> Tensor:
        """The image without noise at any scale. It is close to the mean."""
        return self._from_coarse_to_fine(torch.zeros_like)

    @property
    def scale(self) -> Tensor:
        """The same image. Images have no library size."""
        return self.mean

    @property
    def variance(self) -> Tensor:
        """Variance of pixels in :data:`N_DRAWS` draws, always from the same random numbers."""
        first, second = torch.zeros_like(self.loc), torch.zeros_like(self.loc)
        with torch.random.fork_rng([self.loc.device] if self.loc.is_cuda else []):
            torch.manual_seed(0)
            for _ in range(N_DRAWS):
                draw = self.sample() - self.loc
                first, second = first + draw, second + draw.square()
        return (second - first.square() / N_DRAWS) / (N_DRAWS - 1)

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        px = MultiscaleNormal(
            self.loc.expand(shape), self.log_noise, self.step, self.basis, self.networks
        )
        return px._from_coarse_to_fine(lambda deviation: deviation * torch.randn_like(deviation))


class MultiscaleNormalLikelihood(ImageLikelihood):
    """Images whose details are predicted from coarse to fine, by convolutions.

    A blurred filament shows where its sharp edges are. So most fine details need no place in z. The
    convolutions are the same at each place of an image, so a few hundred images are enough to learn
    them. z explains the coarse structure, and what the coarse structure does not show.

    References
    ----------
    Burt & Adelson (1983), The Laplacian pyramid as a compact image code. Yu et al. (2020), Wavelet
    Flow, for the density of details given a coarser image.

    Examples
    --------
    >>> from betavi.data import ImageFormat
    >>> from betavi.likelihoods import IMAGE_LIKELIHOODS, DispersionSizes
    >>> image, sizes = ImageFormat(2, 64, 64), DispersionSizes(1, 1)
    >>> likelihood = IMAGE_LIKELIHOODS["multiscale_normal"](8704, image, "gene", sizes)
    >>> [tuple(part.shape) for part in likelihood.basis.pyramid(torch.zeros(5, 8192))[0]]
    [(5, 2, 4, 4), (5, 2, 8, 8), (5, 2, 16, 16), (5, 2, 32, 32), (5, 2, 64, 64)]
    """

    reads_image = True

    gain: Tensor

    def add_noise(self) -> None:
        self.basis = HaarBasis(*self.image.shape)
        self.n_noises = self.image.n_channels * self.basis.n_bands
        self.register_buffer("gain", torch.ones(self.n_noises))
        networks = [DetailNetwork(self.image.n_channels) for _ in range(self.basis.n_levels)]
        self.networks = nn.ModuleList(networks)

    def whitened(self, changes: Tensor) -> Tensor:
        return self.basis.inverse(self.basis(changes) / self.gain[self.basis.bands])

    def coloured(self, white: Tensor) -> Tensor:
        return self.basis.inverse(self.gain[self.basis.bands] * self.basis(white))

    def mean_at_start(self, centre: Tensor) -> Tensor:
        """Return only the coarsest image. Details differ more between images than between places."""
        coarsest, *details = self.basis.parts(self.basis(centre))
        for part in details:
            coarsest = doubled(coarsest, torch.zeros_like(part))
        return coarsest.flatten(-3)

    def log_theta_at(self, residual: Tensor) -> Tensor:  # type: ignore[override]  # of images
        """Start the networks at least squares."""
        self.gain.copy_(self._band_deviation(self.basis(residual)))
        differences, details = self.basis.pyramid(residual)
        means = self.basis.pyramid(self.of_pixels(self.mean))[0]
        left = [differences[0]]
        for level, network in enumerate(cast("list[DetailNetwork]", self.networks)):
            coarse = means[level] + differences[level]
            left.append(network.start_at(coarse, differences[level], details[level]))
        found = self._band_deviation(torch.cat([part.flatten(-3) for part in left], dim=-1))
        return found.log()

    def _band_deviation(self, coefficients: Tensor) -> Tensor:
        """Return the standard deviation of each band around 0, ``(n_noises,)``."""
        squares = coefficients.square().mean(dim=0)
        sums = squares.new_zeros(self.n_noises).index_add_(0, self.basis.bands, squares)
        smallest = SMALLEST_NOISE * self.image.step
        return (sums / self.basis.bands.bincount()).sqrt().clamp_min(smallest)

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> MultiscaleNormal:
        log_noise = self.log_theta(h, batch, label)[..., self.basis.bands]
        networks = cast("Sequence[DetailNetwork]", self.networks)
        return MultiscaleNormal(self.predicted(h), log_noise, self.image.step, self.basis, networks)

    def parameters_of(self, px: MultiscaleNormal) -> dict[str, Tensor]:
        return {"mean": px.mean, "dispersions": px.log_noise.exp().expand_as(px.loc)}
