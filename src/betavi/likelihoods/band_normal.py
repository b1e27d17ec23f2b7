"""Images with normal noise of a strength of its own in each band of spatial frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from betavi.likelihoods._cosines import CosineBasis
from betavi.likelihoods._image import SMALLEST_NOISE, ImageLikelihood
from betavi.likelihoods.normal_image import ImageNormal

if TYPE_CHECKING:
    from torch import Tensor


class BandNormalLikelihood(ImageLikelihood):
    """Images with one standard deviation for each band of spatial frequency, and for each channel.

    The cosine basis is orthonormal, so the density is exact, and costs as little as a squared error.
    Noise of a fine band is as small as what z leaves unexplained in this band. Fine structure is
    then worth as many nats as it carries, and draws have the texture of the data.

    Examples
    --------
    >>> from betavi.data import ImageFormat
    >>> from betavi.likelihoods import IMAGE_LIKELIHOODS, DispersionSizes
    >>> image = ImageFormat(2, 64, 64)
    >>> likelihood = IMAGE_LIKELIHOODS["band_normal"](8704, image, "gene", DispersionSizes(1, 1))
    >>> likelihood.n_noises
    48
    """

    gain: Tensor

    def add_noise(self) -> None:
        self.basis = CosineBasis(*self.image.shape)
        self.n_noises = self.image.n_channels * self.basis.n_bands
        self.register_buffer("gain", torch.ones(self.n_noises))

    def whitened(self, changes: Tensor) -> Tensor:
        return self.basis.inverse(self.basis(changes) / self.gain[self.basis.bands])

    def coloured(self, white: Tensor) -> Tensor:
        """Give bands of the output layer the strength of the noise.

        Otherwise, gradients from the noise of many fine coefficients hide those of few coarse ones.
        """
        return self.basis.inverse(self.gain[self.basis.bands] * self.basis(white))

    def log_theta_at(self, residual: Tensor) -> Tensor:  # type: ignore[override]  # of images
        squares = self.basis(residual).square().mean(dim=0)
        sums = squares.new_zeros(self.n_noises).index_add_(0, self.basis.bands, squares)
        smallest = SMALLEST_NOISE * self.image.step
        deviation = (sums / self.basis.bands.bincount()).sqrt().clamp_min(smallest)
        self.gain.copy_(deviation)
        return (deviation / self._of_bands(self.deviation)).log()

    def _of_bands(self, values: Tensor) -> Tensor:
        """Return values of channels for each band, ``(n_noises,)``."""
        return values.repeat_interleave(self.basis.n_bands)

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> ImageNormal:
        noise = self._of_bands(self.deviation) * self.log_theta(h, batch, label).exp()
        deviation = self.above_floor(noise)[..., self.basis.bands]
        return ImageNormal(self.predicted(h), deviation, self.image.step, self.basis)

    def parameters_of(self, px: ImageNormal) -> dict[str, Tensor]:
        return {"mean": px.loc, "dispersions": px.deviation.expand_as(px.loc)}
