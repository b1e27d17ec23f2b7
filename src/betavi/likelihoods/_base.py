"""Interface of likelihoods: output layers that return a distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from betavi._tables import lookup
from betavi.kernels import compiled, head_nats
from betavi.kernels.layers import Heads, TransposedLinear
from betavi.likelihoods._scale import SCALE_ACTIVATIONS
from betavi.likelihoods.dispersion import DISPERSIONS
from betavi.nn.beta_condition import BetaBias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from torch.distributions import Distribution

    from betavi.data.start_values import Start
    from betavi.likelihoods.dispersion import DispersionSizes
    from betavi.nn.beta_condition import BetaCondition


SINGLE = (torch.float32, torch.bfloat16)
"""Types of a decoder's output that the compiled loops accept."""


def get_normalized(px: Any, key: str) -> Tensor:
    """Return a distribution's mean, ``"mu"``, or scale, ``"scale"``, like scvi-tools' method."""
    return getattr(px, lookup({"mu": "mean", "scale": "scale"}, key, "key"))


class Deferred:
    """Distribution that is made only when it is needed, with a faster way to the distortion.

    Training needs only the distortion (negative log-likelihood). ``make`` returns the distribution.
    The other arguments are those of :func:`betavi.kernels.head_nats`.
    """

    def __init__(
        self, make: Callable[[], Distribution], heads: Heads, h: Tensor, log_size: Tensor
    ) -> None:
        self._make = make
        self._read = heads, h, log_size

    def nats(self, x: Tensor) -> Tensor:
        """Return the distortion of each cell, ``(..., n_cells)``."""
        heads, h, log_size = self._read
        return head_nats(heads, x, h, log_size)

    @cached_property
    def _made(self) -> Distribution:
        return self._make()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_make" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._made, name)


class Likelihood(nn.Module, ABC):
    """Likelihood p(x given z) of one modality: output layers of its decoder, and a dispersion.

    Parameters
    ----------
    n_hidden
        Width of the decoder's last hidden layer.
    n_features
        Number of genes, peaks or proteins.
    scale_activation
        ``"softmax"`` if the library size sets the total of the cell. ``"softplus"`` with size
        factors.
    dispersion
        Key of :data:`~betavi.likelihoods.DISPERSIONS`.
    sizes
        Numbers of batches and labels.
    beta_condition
        Only for a model trained on a range of β: the β on which the dispersion depends. A higher β
        leaves more variance unexplained.

    Raises
    ------
    ValueError
        If ``scale_activation`` or ``dispersion`` is not in its table.

    Examples
    --------
    >>> from betavi.likelihoods import LIKELIHOODS, DispersionSizes
    >>> likelihood = LIKELIHOODS["nb"](8, 20, "softmax", "gene", DispersionSizes(1, 1))
    >>> px = likelihood(torch.ones(3, 8), torch.zeros(3, 1), torch.zeros(3, 1).long(), None)
    >>> px.mean.sum(dim=1).round().tolist()
    [1.0, 1.0, 1.0]
    """

    has_dispersion: ClassVar[bool] = True
    """True if the distribution has a second parameter, ``theta``, besides its mean."""

    reads_size: ClassVar[bool] = True
    """True if the mean depends on the library size."""

    is_of_counts: ClassVar[bool] = True
    """True if the likelihood predicts the number of counts, not only their presence."""

    of_whole_numbers: ClassVar[bool] = True
    """True if values are whole numbers, False if they are any numbers of at least 0."""

    is_gamma_poisson: ClassVar[bool] = False
    """True if counts are Poisson draws of gamma-distributed rates. Includes the Poisson limit."""

    is_of_detection: ClassVar[bool] = False
    """True if the likelihood predicts the presence of counts, not their number."""

    per_batch: ClassVar[tuple[str, ...]] = ()
    """Names of parameters with a column for each batch."""

    learns_from_counts: ClassVar[bool] = False
    """True if a count adds information about its expected count given z. See :meth:`posterior`."""

    of_images: ClassVar[bool] = False
    """True if the features are the pixels of an image, see :class:`ImageLikelihood`."""

    reads_image: ClassVar[bool] = False
    """True if parts of an image predict others, so that z need not explain them."""

    rows: ClassVar[str | None] = None
    """Name of the likelihood's training loop in ``betavi.kernels.compiled``, or None."""

    compiled_layers: ClassVar[tuple[str, ...]] = ("unscaled",)
    """Names of the output layers, in the order in which the training loop reads them."""

    has_background: ClassVar[bool] = False
    """True if the likelihood separates a foreground from a background, as for surface proteins."""

    scale_is_local: ClassVar[bool] = True
    """True if a feature's normalised scale does not depend on other features."""

    def __init__(
        self,
        n_hidden: int,
        n_features: int,
        scale_activation: str,
        dispersion: str,
        sizes: DispersionSizes,
        beta_condition: BetaCondition | None = None,
    ) -> None:
        super().__init__()
        self.unscaled = TransposedLinear(n_hidden, n_features)
        self.positive = lookup(SCALE_ACTIVATIONS, scale_activation, "scale_activation")()
        dispersion_class = lookup(DISPERSIONS, dispersion, "dispersion")
        self.drift: BetaBias | None = None
        if self.has_dispersion:
            self.dispersion = dispersion_class(n_hidden, n_features, sizes)
            if beta_condition is not None:
                self.drift = BetaBias(n_features, beta_condition)
        self._chosen: Tensor | None = None
        self.add_heads(n_hidden, n_features, sizes)

    def add_heads(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        """Add parameters besides mean and dispersion. By default, add nothing."""

    @torch.no_grad()
    def start_at(self, start: Start) -> None:
        """Start training at the mean profile for every cell, with a matching dispersion."""
        self.unscaled.bias.copy_(self.positive.inverse(start.profile))
        log_theta = self.log_theta_at(start)
        if log_theta is not None:
            self.dispersion.start_at(log_theta)

    @abstractmethod
    def log_theta_at(self, start: Start) -> Tensor | None:
        """Return the initial log of the second parameter, ``(n_features,)``, or None without one."""

    @contextmanager
    def only(self, features: np.ndarray | None) -> Iterator[None]:
        """Restrict distributions to some features, ``(n_chosen,)``, in a ``with`` block.

        None keeps all.
        """
        before = self._chosen
        device = self.unscaled.weight.device
        self._chosen = None if features is None else torch.as_tensor(features, device=device)
        try:
            yield
        finally:
            self._chosen = before

    def of_chosen(self, values: Tensor) -> Tensor:
        """Return the columns of the features chosen by :meth:`only`."""
        return values if self._chosen is None else values[..., self._chosen]

    def head(self, layer: nn.Linear, h: Tensor) -> Tensor:
        """Return a layer's output for the chosen features."""
        if self._chosen is None:
            return layer(h)
        return linear(h, layer.weight[self._chosen], layer.bias[self._chosen])

    def rate(self, h: Tensor, log_size: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scale, and the mean at the cell's size, each ``(..., n_cells, n_features)``."""
        if self.positive.needs_all:
            scale = self.of_chosen(self.positive(self.unscaled(h)))
        else:
            scale = self.positive(self.head(self.unscaled, h))
        return scale, log_size.exp() * scale

    def log_theta(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Tensor:
        """Return the log of the second parameter, broadcastable to the distribution's shape."""
        log_theta: Tensor = self.dispersion(h, batch, label)
        return log_theta if self.drift is None else log_theta + self.drift()

    def theta(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Tensor:
        """Return the second parameter, broadcastable to ``(..., n_cells, n_features)``."""
        return self.of_chosen(self.log_theta(h, batch, label)).exp()

    def forward(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> Distribution | Deferred:
        """Return :meth:`distribution`, or a faster form of it for training on a CPU."""
        make = partial(self.distribution, h, log_size, batch, label)
        heads = self._compiled_heads(h, batch, label) if self.training else None
        return make() if heads is None else Deferred(make, heads, h, log_size)

    def _compiled_heads(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Heads | None:
        if self.rows is None or compiled is None or self._chosen is not None:
            return None
        if not self.positive.needs_all or h.dtype not in SINGLE or h.device.type != "cpu":
            return None
        if self.unscaled.weight.dtype != torch.float32:
            return None
        log_theta = self.log_theta(h, batch, label) if self.has_dispersion else None
        layers = tuple(getattr(self, name) for name in self.compiled_layers)
        return Heads(getattr(compiled, self.rows), layers, log_theta)

    @abstractmethod
    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> Distribution:
        """Return the distribution of each cell's features.

        ``h`` is the decoder's last hidden layer, ``(..., n_cells, n_hidden)``. ``log_size`` is the
        log library size or size factor, ``(..., n_cells, 1)``. Batch and label are codes,
        ``(n_cells, 1)``.
        """

    def log_mass(self, px: Any, counts: Tensor) -> Tensor:
        """Return the log-probability of integer counts, ``(..., n_cells, n_features)``, in nats.

        A density is integrated from 0.5 below to 0.5 above the count. For a count of zero, the
        integral starts at minus infinity.
        """
        return px.log_prob(counts)

    def log_detection(self, px: Any, counts: Tensor) -> Tensor:
        """Return log P(x = 0) where the count is zero and log P(x > 0) elsewhere, in nats."""
        zero = self.log_mass(px, torch.zeros_like(counts)).double()
        return zero.where(counts == 0, (-zero.expm1()).log())

    def expected(self, px: Any) -> Tensor:
        """Return the expected counts, at least 0, ``(..., n_cells, n_features)``."""
        return px.mean.clamp_min(0)

    def posterior(self, px: Any, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the expected count behind each count, given z and the count.

        The expected count of a cell may vary around the decoder's mean. If the observed count is a
        Poisson draw with this expectation, the posterior mean lies between the decoder's mean and
        the count. Otherwise the count adds no information: the mean is the decoder's mean, and the
        variance is zero.
        """
        mean = self.expected(px)
        return mean, torch.zeros_like(mean)

    @abstractmethod
    def parameters_of(self, px: Any) -> dict[str, Tensor]:
        """Return the parameters, ``(..., n_cells, n_features)``, by scvi-tools' names."""
