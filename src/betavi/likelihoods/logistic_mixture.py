"""Grey levels with a mixture of discretised logistic distributions at each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, constraints
from torch.nn.functional import logsigmoid

from betavi.likelihoods._base import get_normalized
from betavi.likelihoods._image import ImageLikelihood

if TYPE_CHECKING:
    from torch.types import _size

    from betavi.data.images import ImageFormat

N_COMPONENTS = 5
"""Number of logistic distributions at each pixel. Not tuned."""

SPREAD = torch.linspace(-1.0, 1.0, N_COMPONENTS)
"""Start positions of the components around the prediction, in standard deviations. Not tuned."""

MOST_LEVELS = 2**16
"""Largest number of grey levels: 16 bits."""

SMALLEST_LOG_SCALE = -7.0
"""Smallest log scale of a component, in standard deviations of the channel."""


def log_mass_of_logistic(value: Tensor, loc: Tensor, scale: Tensor, half: float) -> Tensor:
    """Return log P(value - half < y < value + half) of a logistic y, without cancellation.

    With a = (low - loc) / scale and b = (high - loc) / scale, the probability is the sigmoid of b, times
    the sigmoid of -a, times 1 - exp(a - b).
    """
    a, b = (value - half - loc) / scale, (value + half - loc) / scale
    return logsigmoid(b) + logsigmoid(-a) + torch.log(-torch.expm1(-2 * half / scale))


class LogisticMixture(Distribution):
    """Mixture of logistic distributions, in bins of one grey level. The outer bins are open.

    ``logits``, ``loc`` and ``scale`` of the components: ``(..., n_cells, n_pixels, n_components)``.
    ``image``: format with the step, the lowest and the highest grey level.

    Reference: Salimans et al. (2017), PixelCNN++.
    """

    arg_constraints: ClassVar = {
        "logits": constraints.real,
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.real
    get_normalized = get_normalized

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor, image: ImageFormat) -> None:
        self.logits, self.loc, self.deviation, self.image = logits, loc, scale, image
        super().__init__(loc.shape[:-1], validate_args=False)

    @property
    def shares(self) -> Tensor:
        """Probability of each component."""
        return self.logits.softmax(dim=-1)

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, without the limits of the grey levels."""
        return (self.shares * self.loc).sum(dim=-1)

    @property
    def scale(self) -> Tensor:
        """The mean image. Images have no library size."""
        return self.mean

    @property
    def variance(self) -> Tensor:
        within = (torch.pi * self.deviation).square() / 3
        return (self.shares * (within + (self.loc - self.mean[..., None]).square())).sum(dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of grey levels, ``(..., n_cells, n_pixels)``."""
        half = self.image.step / 2
        value = value.clamp(self.image.lowest, self.image.highest)[..., None]
        within = log_mass_of_logistic(value, self.loc, self.deviation, half)
        below = logsigmoid((value + half - self.loc) / self.deviation)
        above = logsigmoid((self.loc - value + half) / self.deviation)
        mass = within.where(value > self.image.lowest + half, below)
        mass = mass.where(value < self.image.highest - half, above)
        return (mass + self.logits.log_softmax(dim=-1)).logsumexp(dim=-1)

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        logits, loc, scale = (
            part.expand(*shape, part.shape[-1]) for part in (self.logits, self.loc, self.deviation)
        )
        component = Categorical(logits=logits).sample()[..., None]
        noise = torch.rand(shape, device=loc.device).clamp(1e-6, 1 - 1e-6).logit()
        drawn = loc.gather(-1, component)[..., 0] + scale.gather(-1, component)[..., 0] * noise
        low, high, step = self.image.lowest, self.image.highest, self.image.step
        return (low + ((drawn - low) / step).round() * step).clamp(low, high)


class LogisticMixtureLikelihood(ImageLikelihood):
    """Grey levels from a mixture of five discretised logistic distributions, for 8 to 16 bits.

    Noise may differ between pixels, and may have several modes and long tails. Pixels are independent
    given z, as with ``"normal_image"``, and each step takes several times as long.

    References
    ----------
    Salimans et al. (2017), PixelCNN++: improving the PixelCNN with discretized logistic mixture
    likelihood and other modifications.

    Examples
    --------
    >>> from betavi.data import ImageFormat
    >>> from betavi.likelihoods.logistic_mixture import LogisticMixture
    >>> levels = torch.arange(16.0)[:, None]
    >>> one = torch.ones(1, 1, 1)
    >>> px = LogisticMixture(one, 7 * one, 2 * one, ImageFormat(1, 1, 1, highest=15.0))
    >>> round(px.log_prob(levels).exp().sum().item(), 4)
    1.0
    """

    has_dispersion = False
    is_discrete = True
    n_outputs = 1 + 3 * N_COMPONENTS

    @classmethod
    def check(cls, image: ImageFormat) -> None:
        """Raise a ValueError unless the images have at most 65,536 grey levels."""
        super().check(image)
        if image.n_levels > MOST_LEVELS:
            raise ValueError(
                f"The images have {image.n_levels} grey levels, but 'logistic_mixture' takes at most "
                f"{MOST_LEVELS} (16 bits). Use 'band_normal', or round the images to fewer levels."
            )

    def log_theta_at(self, residual: Tensor) -> None:  # type: ignore[override]  # of images
        """Return None: the noise is part of the decoded components."""

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> LogisticMixture:
        # the first output moves all components
        moved, *others = self.unscaled(h)
        logits, loc, log_scale = torch.stack(others, dim=-1).split(N_COMPONENTS, dim=-1)
        unit = self.of_pixels(self.deviation)[:, None]
        loc = self.of_pixels(self.mean)[:, None] + unit * (SPREAD.to(loc) + loc + moved[..., None])
        scale = unit * (log_scale - 1).clamp_min(SMALLEST_LOG_SCALE).exp()
        return LogisticMixture(logits, loc, scale, self.image)

    def parameters_of(self, px: Any) -> dict[str, Tensor]:
        return {"mean": px.mean}
