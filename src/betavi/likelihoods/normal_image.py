"""Images with normal noise of the same strength at all scales."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from betavi.likelihoods._base import get_normalized
from betavi.likelihoods._image import ImageLikelihood

if TYPE_CHECKING:
    from torch.types import _size

    from betavi.likelihoods._cosines import CosineBasis


class ImageNormal(Distribution):
    r"""Normal images whose noise is independent between the coefficients of an orthonormal basis.

    The log-probability of a grey level is a lower bound: the mean of the log density over the
    quantisation step (Theis et al., 2016, A note on the evaluation of generative models),

    .. math:: E_u \log p(x + u) + \log s = \log p(x) - \sum_k s^2 / (24 \sigma_k^2) + \log s

    with step s and :math:`u` uniform from -s/2 to s/2. An orthonormal basis does not change the
    variance :math:`s^2 / 12` of u, so the bound is exact for the normal distribution in any basis.

    ``loc``: mean image, ``(..., n_cells, n_pixels)``. ``deviation``: standard deviation of each
    coefficient, broadcastable to ``loc``. ``basis``: None for the pixels themselves.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "deviation": constraints.positive}
    support = constraints.real
    get_normalized = get_normalized

    def __init__(
        self,
        loc: Tensor,
        deviation: Tensor,
        step: float,
        basis: CosineBasis | None = None,
    ) -> None:
        self.loc, self.deviation, self.step, self.basis = loc, deviation, step, basis
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def scale(self) -> Tensor:
        """The mean image. Images have no library size."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        variance = self.deviation.square()
        if self.basis is None:
            return variance.expand_as(self.loc)
        return self.basis.pixel_variance(variance).expand_as(self.loc)

    def log_density(self, value: Tensor) -> Tensor:
        """Return terms of the log density, one for each coefficient. Their sum is exact."""
        noise = value - self.loc
        noise = noise if self.basis is None else self.basis(noise)
        constant = self.deviation.log() + math.log(2 * math.pi) / 2
        return -(noise / self.deviation).square() / 2 - constant

    def log_prob(self, value: Tensor) -> Tensor:
        """Return terms of the log-probability of grey levels, ``(..., n_cells, n_pixels)``."""
        within_step = (self.step / self.deviation).square() / 24
        return self.log_density(value) - within_step + math.log(self.step)

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = self.deviation * torch.randn(shape, device=self.loc.device)
        return self.loc + (noise if self.basis is None else self.basis.inverse(noise))


class NormalImageLikelihood(ImageLikelihood):
    """Images with one standard deviation for each channel. This is the squared error, with units.

    All scales share one noise. The coarse structure that z does not explain sets it, and the fine
    structure below this noise is worth few nats. Reconstructions are blurred.

    Examples
    --------
    >>> from betavi.likelihoods.normal_image import ImageNormal
    >>> px = ImageNormal(torch.zeros(1, 1), torch.ones(1), step=1.0)
    >>> round(px.log_prob(torch.zeros(1, 1)).item(), 4)
    -0.9606
    """

    def log_theta_at(self, residual: Tensor) -> Tensor:  # type: ignore[override]  # of images
        return (self.channel_deviation(residual) / self.deviation).log()

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> ImageNormal:
        noise = self.above_floor(self.deviation * self.log_theta(h, batch, label).exp())
        return ImageNormal(self.predicted(h), self.of_pixels(noise), self.image.step)

    def parameters_of(self, px: ImageNormal) -> dict[str, Tensor]:
        return {"mean": px.loc, "dispersions": px.deviation.expand_as(px.loc)}
