"""Photon counts of images: Poisson, and negative binomial."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch.nn.functional import softplus

from betavi.likelihoods._image import ImageLikelihood
from betavi.likelihoods.nb import LOG_THETA_RANGE, NegativeBinomial, gamma_posterior
from betavi.likelihoods.poisson import Poisson

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data.images import ImageFormat

SMALLEST_RATE = 1e-4
"""Smallest mean count of a channel, so that no photon is impossible."""

AT_ONE = 0.5413
"""Value whose softplus is 1: training starts at the mean of each channel."""

SLOPE = 1 - math.exp(-1)
"""Slope of softplus at :data:`AT_ONE`."""


class PhotonLikelihood(ImageLikelihood):
    """Photon counts with a positive rate at each pixel. Base class.

    Images have no library size. The total of an image is its brightness, which z should explain. A
    likelihood that reads the total would also not be comparable in bits per pixel.
    """

    is_discrete = True
    of_whole_numbers = True
    is_gamma_poisson = True

    @classmethod
    def check(cls, image: ImageFormat) -> None:
        """Raise a ValueError unless the images are whole numbers of at least 0."""
        if image.lowest < 0:
            raise ValueError(
                f"The lowest value of the images is {image.lowest:g}, but photon counts are not "
                "negative. Use 'band_normal' for other values, or pass the raw counts of the camera."
            )
        values = image.step, image.lowest
        if not image.has_step or any(value != round(value) for value in values):
            raise ValueError(
                "The images are not whole numbers, but photon counts are. Use 'band_normal' for other "
                "values, or pass the raw counts of the camera."
            )

    def rates(self, h: Tensor) -> Tensor:
        """Return the expected photons of each pixel, ``(..., n_cells, n_pixels)``."""
        (unscaled,) = self.unscaled(h)
        return self._usual * softplus(unscaled + AT_ONE)

    @property
    def _usual(self) -> Tensor:
        return self.of_pixels(self.mean.clamp_min(SMALLEST_RATE))

    def whitened(self, changes: Tensor) -> Tensor:
        """Return changes of small size in the units of the output layer."""
        return changes / (SLOPE * self._usual)

    def coloured(self, white: Tensor) -> Tensor:
        """Return changes of small size in the units of the data."""
        return SLOPE * self._usual * white


class PoissonImageLikelihood(PhotonLikelihood):
    """Photon counts with a variance equal to their mean, as of an ideal detector.

    Examples
    --------
    >>> from betavi.likelihoods import IMAGE_LIKELIHOODS
    >>> IMAGE_LIKELIHOODS["poisson"].has_dispersion
    False
    """

    has_dispersion = False

    def log_theta_at(self, residual: Tensor) -> None:  # type: ignore[override]  # of images
        """Return None: the variance is the mean."""

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> Poisson:
        rate = self.rates(h)
        return Poisson(rate, scale=rate)

    def parameters_of(self, px: Poisson) -> dict[str, Tensor]:
        return {"mean": px.rate}


class NegativeBinomialImageLikelihood(PhotonLikelihood):
    """Photon counts that vary more than Poisson counts, with one inverse dispersion per channel.

    Examples
    --------
    >>> from betavi.likelihoods import IMAGE_LIKELIHOODS
    >>> IMAGE_LIKELIHOODS["nb"].has_dispersion
    True
    """

    learns_from_counts = True

    def log_theta_at(self, residual: Tensor) -> Tensor:  # type: ignore[override]  # of images
        mean = self.mean.clamp_min(SMALLEST_RATE)
        excess = (self.channel_deviation(residual).square() - mean) / mean.square()
        low, high = LOG_THETA_RANGE
        return -excess.clamp(math.exp(-high), math.exp(-low)).log()

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> NegativeBinomial:
        rate = self.rates(h)
        theta = self.of_pixels(self.log_theta(h, batch, label).exp()).expand_as(rate)
        return NegativeBinomial(mu=rate, theta=theta, scale=rate)

    def posterior(self, px: NegativeBinomial, counts: Tensor) -> tuple[Tensor, Tensor]:
        return gamma_posterior(px.mu, px.theta, counts)

    def parameters_of(self, px: NegativeBinomial) -> dict[str, Tensor]:
        return {"mean": px.mu, "dispersions": px.theta}
