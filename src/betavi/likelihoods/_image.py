"""Interface of likelihoods of images."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from betavi._tables import lookup
from betavi.likelihoods._base import Likelihood
from betavi.likelihoods.dispersion import DISPERSIONS
from betavi.nn.beta_condition import BetaBias

if TYPE_CHECKING:
    from torch.distributions import Distribution

    from betavi.data.images import ImageFormat
    from betavi.data.start_images import ImageStart
    from betavi.likelihoods.dispersion import DispersionSizes
    from betavi.nn.beta_condition import BetaCondition

SHRINKS = 4
"""Side of a square of pixels that one position of the decoder's last hidden layer predicts."""

SMALL_WEIGHT = 0.1
"""Factor of the output layer's initial weights, so that training starts near the mean. Not tuned."""


SMALLEST_NOISE = 0.1
"""Smallest standard deviation, in quantisation steps. The best one for constant pixels is 0.29."""


class PixelHead(nn.Conv2d):
    """Output layer of images: each position of the decoder's maps predicts 4 by 4 pixels.

    The image that follows the maps is added to the first output.

    Reference: Shi et al. (2016), Real-time single image super-resolution with sub-pixel convolution.
    """

    def __init__(self, n_hidden: int, image: ImageFormat, n_outputs: int) -> None:
        self.grid = image.height // SHRINKS, image.width // SHRINKS
        self.n_pixels = image.n_pixels
        n_maps = (n_hidden - self.n_pixels) // (self.grid[0] * self.grid[1])
        super().__init__(n_maps, n_outputs * image.n_channels * SHRINKS**2, 3, padding=1)
        self.n_outputs = n_outputs
        with torch.no_grad():
            self.weight.mul_(SMALL_WEIGHT)
            cast("Tensor", self.bias).zero_()

    def forward(self, h: Tensor) -> Tensor:
        """Return values of each pixel, ``(n_outputs, ..., n_cells, n_pixels)``."""
        maps, image = h[..., : -self.n_pixels], h[..., -self.n_pixels :]
        maps = maps.reshape(-1, self.in_channels, *self.grid)
        pixels = pixel_shuffle(super().forward(maps), SHRINKS)
        first, *others = pixels.reshape(*h.shape[:-1], self.n_outputs, -1).unbind(dim=-2)
        return torch.stack([first + image, *others])


class ImageLikelihood(Likelihood):
    """Likelihood of images, flat in memory: ``(..., n_cells, n_pixels)`` for all channels.

    All likelihoods give the log-probability of grey levels, so they can be compared in bits per
    pixel. A density is multiplied by the quantisation step. Images have no library size, because the
    brightness of an image is part of what z should explain.

    Parameters
    ----------
    n_hidden
        Size of the decoder's last hidden layer: maps of a quarter of the image's height and width,
        and then an image, the output of the decoder's linear path.
    image
        Format of the images.
    dispersion
        Key of :data:`~betavi.likelihoods.DISPERSIONS`. Each noise parameter takes the place of a
        gene: with ``"gene-batch"``, noise differs between batches.
    sizes, beta_condition
        See :class:`~betavi.likelihoods.Likelihood`.

    Raises
    ------
    ValueError
        If the images do not fit the likelihood, or ``dispersion`` is not in its table.

    Examples
    --------
    >>> from betavi.data import ImageFormat
    >>> from betavi.likelihoods import IMAGE_LIKELIHOODS, DispersionSizes
    >>> image = ImageFormat(1, 32, 32)
    >>> likelihood = IMAGE_LIKELIHOODS["band_normal"](1152, image, "gene", DispersionSizes(1, 1))
    >>> likelihood(torch.ones(3, 1152), torch.zeros(3, 1), torch.zeros(3, 1).long(), None).mean.shape
    torch.Size([3, 1024])
    """

    reads_size = False
    is_of_counts = False
    of_whole_numbers = False
    of_images = True

    n_outputs: ClassVar[int] = 1
    """Number of values that the output layer gives for each pixel."""

    is_discrete: ClassVar[bool] = False
    """True if only grey levels on the grid have a probability."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        n_hidden: int,
        image: ImageFormat,
        dispersion: str,
        sizes: DispersionSizes,
        beta_condition: BetaCondition | None = None,
    ) -> None:
        # without the output layer of all genes, which would be too large for pixels
        nn.Module.__init__(self)
        self.check(image)
        self.image, self._chosen, self.drift = image, None, None
        self.unscaled: PixelHead = PixelHead(n_hidden, image, self.n_outputs)  # type: ignore[assignment]
        for name in ("mean", "deviation"):
            self.register_buffer(name, torch.ones(image.n_channels))
        self.add_noise()
        if self.has_dispersion:
            dispersion_class = lookup(DISPERSIONS, dispersion, "dispersion")
            self.dispersion = dispersion_class(self.unscaled.in_channels, self.n_noises, sizes)
            if beta_condition is not None:
                self.drift = BetaBias(self.n_noises, beta_condition)

    @classmethod
    def check(cls, image: ImageFormat) -> None:
        """Raise a ValueError if the images do not fit the likelihood. By default, all fit."""
        if cls.is_discrete and not image.has_step:
            raise ValueError(
                "The values of the images lie on no grid of grey levels, but this likelihood gives "
                "probabilities of grey levels. Use 'band_normal'. Or, round the images: "
                "images.round()"
            )

    def add_noise(self) -> None:
        """Set ``n_noises``, the number of noise parameters. By default, one for each channel."""
        self.n_noises = self.image.n_channels

    def of_pixels(self, values: Tensor) -> Tensor:
        """Return values of channels, ``(..., n_channels)``, for each pixel, ``(..., n_pixels)``."""
        return values.repeat_interleave(self.image.height * self.image.width, dim=-1)

    @torch.no_grad()
    def start_at(self, start: ImageStart) -> None:  # type: ignore[override]  # images have pixels
        """Start training at the mean of each channel, and at the noise around it."""
        self.mean.copy_(start.mean)
        self.deviation.copy_(start.deviation)
        self.start_noise_at(start.images.to(self.mean.device) - self.of_pixels(self.mean))

    @torch.no_grad()
    def start_noise_at(self, residual: Tensor) -> None:
        """Start the noise at images that are not explained, minus their mean, ``(n, n_pixels)``."""
        if (log_theta := self.log_theta_at(residual)) is not None:
            self.dispersion.start_at(log_theta)

    def mean_at_start(self, centre: Tensor) -> Tensor:
        """Return the image at which training starts, for the mean image, both ``(n_pixels,)``."""
        return centre

    def channel_deviation(self, residual: Tensor) -> Tensor:
        """Return the standard deviation of each channel around 0, ``(n_channels,)``."""
        squares = residual.unflatten(-1, (self.image.n_channels, -1)).square()
        return squares.mean(dim=(0, 2)).sqrt().clamp_min(SMALLEST_NOISE * self.image.step)

    def log_theta(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Tensor:
        """Return the log of the noise parameters, broadcastable to ``(..., n_cells, n_noises)``.

        Noise that depends on z reads the mean of each map. All positions are too many inputs: a step of
        training would change the noise by several orders of magnitude.
        """
        maps = (
            h[..., : -self.image.n_pixels]
            .unflatten(-1, (self.unscaled.in_channels, -1))
            .mean(dim=-1)
        )
        return super().log_theta(maps, batch, label)

    def above_floor(self, noise: Tensor) -> Tensor:
        """Return standard deviations that are at least a tenth of the quantisation step."""
        return (noise.square() + (SMALLEST_NOISE * self.image.step) ** 2).sqrt()

    @abstractmethod
    def log_theta_at(self, residual: Tensor) -> Tensor | None:  # type: ignore[override]
        """Return the initial log of the noise parameters, ``(n_noises,)``, or None without any."""

    def whitened(self, changes: Tensor) -> Tensor:
        """Return changes of images in the units of the output layer, both ``(..., n_pixels)``.

        The map is linear and symmetric. :meth:`coloured` is its inverse.
        """
        return changes / self.of_pixels(self.deviation)

    def coloured(self, white: Tensor) -> Tensor:
        """Return changes of the output layer in the units of the data, both ``(..., n_pixels)``."""
        return self.of_pixels(self.deviation) * white

    def predicted(self, h: Tensor) -> Tensor:
        """Return the predicted image in the units of the data, ``(..., n_cells, n_pixels)``."""
        (white,) = self.unscaled(h)
        return self.of_pixels(self.mean) + self.coloured(white)

    @abstractmethod
    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> Distribution:
        """See :meth:`Likelihood.distribution`. ``log_size`` is not read."""

    def expected(self, px: Any) -> Tensor:
        """Return the mean image, ``(..., n_cells, n_pixels)``."""
        mean: Tensor = px.mean
        return mean
