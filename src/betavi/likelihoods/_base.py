"""What every likelihood is: heads on the decoder's last layer that return a distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from betavi._tables import lookup
from betavi.kernels import Heads, TransposedLinear, compiled, head_nats
from betavi.likelihoods._dispersion import DISPERSIONS
from betavi.nn.gates import Drift

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from torch.distributions import Distribution

    from betavi.data.start import Start
    from betavi.likelihoods._dispersion import DispersionSizes
    from betavi.nn.gates import Dial


class Shares(nn.Softmax):
    """Makes scales shares of a cell's total.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods._base import SCALE_ACTIVATIONS
    >>> SCALE_ACTIVATIONS["softmax"]()(torch.zeros(1, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    needs_all: ClassVar[bool] = True
    """Whether the scale of one feature depends on what is decoded for the others."""

    def __init__(self) -> None:
        super().__init__(dim=-1)

    def inverse(self, scale: Tensor) -> Tensor:
        """Return what becomes the scale, up to its sum."""
        return scale.log()


class Free(nn.Softplus):
    """Makes scales positive, whatever their sum.

    Parameters
    ----------
    beta, threshold
        See :class:`torch.nn.Softplus`.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods._base import SCALE_ACTIVATIONS
    >>> free = SCALE_ACTIVATIONS["softplus"]()
    >>> free(free.inverse(torch.tensor([0.5, 2.0]))).round(decimals=3).tolist()
    [0.5, 2.0]
    """

    needs_all: ClassVar[bool] = False

    def inverse(self, scale: Tensor) -> Tensor:
        """Return what becomes the scale."""
        return scale + (-(-scale).expm1()).log()


SCALE_ACTIVATIONS: dict[str, type[Shares | Free]] = {"softmax": Shares, "softplus": Free}
"""How a scale becomes positive."""


SINGLE = (torch.float32, torch.bfloat16)
"""What a decoder returns in single precision, or where products are rounded further."""


class Deferred:
    """A distribution of which training asks for nothing but the distortion.

    Parameters
    ----------
    make
        Returns the distribution, which is made once anything else is asked for.
    heads, h, log_size
        See :func:`betavi.kernels.head_nats`.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods import LIKELIHOODS, DispersionSizes
    >>> likelihood = LIKELIHOODS["nb"](8, 20, "softmax", "gene", DispersionSizes(1, 1))
    >>> codes, x = torch.zeros(3, 1, dtype=torch.long), torch.ones(3, 20)
    >>> px = likelihood(torch.ones(3, 8), torch.ones(3, 1), codes, None)
    >>> torch.allclose(px.nats(x), -px.log_prob(x).sum(dim=1), rtol=1e-3)
    True
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
        """Return what the distribution says."""
        if name.startswith("__") or "_make" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._made, name)


class Likelihood(nn.Module, ABC):
    """p(x given z) of one modality: the last layer of its decoder and its dispersion.

    Parameters
    ----------
    n_hidden
        Width of the decoder's last hidden layer.
    n_features
        Number of genes, peaks or proteins.
    scale_activation
        ``"softmax"`` where the library size sets the cell's total, ``"softplus"`` where a size
        factor only scales it.
    dispersion
        A key of :data:`~betavi.likelihoods.DISPERSIONS`.
    sizes
        Number of batches and labels.
    dial
        The β that the dispersion is to read, if there are several: what a high β leaves unexplained
        is more.

    Raises
    ------
    ValueError
        If a word is not in its table.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods import LIKELIHOODS, DispersionSizes
    >>> likelihood = LIKELIHOODS["nb"](8, 20, "softmax", "gene", DispersionSizes(1, 1))
    >>> h, log_size = torch.ones(3, 8), torch.full((3, 1), 100.0).log()
    >>> px = likelihood(h, log_size, torch.zeros(3, 1, dtype=torch.long), None)
    >>> px.mean.sum(dim=1).round().tolist()
    [100.0, 100.0, 100.0]
    """

    has_dispersion: ClassVar[bool] = True
    """Whether the distribution has a second parameter, ``theta``, beside its mean."""

    reads_size: ClassVar[bool] = True
    """Whether the mean is that of a cell of the size given."""

    is_of_counts: ClassVar[bool] = True
    """Whether it says how many counts there are, and not only whether there are any."""

    of_whole_numbers: ClassVar[bool] = True
    """Whether values are whole numbers, and not any from 0 on."""

    is_gamma_poisson: ClassVar[bool] = False
    """Whether counts are Poisson draws of gamma rates, be it in the limit."""

    is_of_detection: ClassVar[bool] = False
    """Whether it is of whether there is anything, and not of how much."""

    per_batch: ClassVar[tuple[str, ...]] = ()
    """Names of parameters that have a column for each batch."""

    learns_from_counts: ClassVar[bool] = False
    """Whether a count says more of what it was drawn from than z does, see :meth:`posterior`."""

    rows: ClassVar[str | None] = None
    """The loop in ``betavi.kernels.compiled`` that it may be trained with, if there is one."""

    has_background: ClassVar[bool] = False
    """Whether it tells what is there from what sticks to any cell, as of surface proteins."""

    scale_is_local: ClassVar[bool] = True
    """Whether the normalised scale of a feature can be read without the other features."""

    def __init__(
        self,
        n_hidden: int,
        n_features: int,
        scale_activation: str,
        dispersion: str,
        sizes: DispersionSizes,
        dial: Dial | None = None,
    ) -> None:
        super().__init__()
        self.unscaled = TransposedLinear(n_hidden, n_features)
        self.positive = lookup(SCALE_ACTIVATIONS, scale_activation, "scale_activation")()
        extent = lookup(DISPERSIONS, dispersion, "dispersion")
        if self.has_dispersion:
            self.dispersion = extent(n_hidden, n_features, sizes)
        self.drift = Drift(n_features, dial) if dial is not None and self.has_dispersion else None
        self._chosen: Tensor | None = None
        self.add_heads(n_hidden, n_features, sizes)

    def add_heads(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        """Make the parameters that the likelihood has beside its mean and dispersion.

        Parameters
        ----------
        n_hidden, n_features, sizes
            As of the likelihood.
        """

    @torch.no_grad()
    def start_at(self, start: Start) -> None:
        """Decode the mean profile for every cell, with a dispersion to match, before training."""
        self.unscaled.bias.copy_(self.positive.inverse(start.profile))
        log_theta = self.log_theta_at(start)
        if log_theta is not None:
            self.dispersion.start_at(log_theta)

    @abstractmethod
    def log_theta_at(self, start: Start) -> Tensor | None:
        """Return the log of the second parameter, if any, to start from, ``(n_features,)``."""

    @contextmanager
    def only(self, features: np.ndarray | None) -> Iterator[None]:
        """Be of some features for a while: distributions have no others, and are what they were.

        Parameters
        ----------
        features
            Their positions, ``(n_chosen,)``; all of them if None.
        """
        before = self._chosen
        device = self.unscaled.weight.device
        self._chosen = None if features is None else torch.as_tensor(features, device=device)
        try:
            yield
        finally:
            self._chosen = before

    def of_chosen(self, values: Tensor) -> Tensor:
        """Return the columns of the features that are asked for."""
        return values if self._chosen is None else values[..., self._chosen]

    def head(self, layer: nn.Linear, h: Tensor) -> Tensor:
        """Return what a layer decodes for the features that are asked for, and for no other."""
        if self._chosen is None:
            out: Tensor = layer(h)
            return out
        return linear(h, layer.weight[self._chosen], layer.bias[self._chosen])

    def rate(self, h: Tensor, log_size: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scale, and the mean at the cell's size, both ``(..., n_cells, n_features)``."""
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
        """Return the distribution of the features of each cell.

        While training on a CPU it is one that knows a faster way to the distortion, and is made in
        full only if it is asked for something else.

        Parameters
        ----------
        h, log_size, batch, label
            See :meth:`distribution`.
        """
        make = partial(self.distribution, h, log_size, batch, label)
        heads = self._compiled_heads(h, batch, label) if self.training else None
        return make() if heads is None else Deferred(make, heads, h, log_size)

    def compiled_layers(self) -> tuple[nn.Linear, ...]:
        """Return the output layers in the order in which the compiled loop reads them."""
        return (self.unscaled,)

    def _compiled_heads(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Heads | None:
        if self.rows is None or compiled is None or self._chosen is not None:
            return None
        if not self.positive.needs_all or h.dtype not in SINGLE or h.device.type != "cpu":
            return None
        if self.unscaled.weight.dtype != torch.float32:
            return None
        log_theta = self.log_theta(h, batch, label) if self.has_dispersion else None
        return Heads(getattr(compiled, self.rows), self.compiled_layers(), log_theta)

    @abstractmethod
    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> Distribution:
        """Return the distribution of the features of each cell, by the plain path.

        Parameters
        ----------
        h
            The decoder's last hidden layer, ``(..., n_cells, n_hidden)``.
        log_size
            Log library size or log size factor, ``(..., n_cells, 1)``.
        batch, label
            Codes, ``(n_cells, 1)``.
        """

    def log_mass(self, px: Any, counts: Tensor) -> Tensor:
        """Return the log-probability of integer counts, ``(..., n_cells, n_features)``, in nats.

        Of a density it is the integral over half a count on both sides, and below for zero.
        """
        return px.log_prob(counts)

    def log_detection(self, px: Any, counts: Tensor) -> Tensor:
        """Return the log-probability of what is known of zeros: that a count is one, or is not."""
        zero = self.log_mass(px, torch.zeros_like(counts)).double()
        return zero.where(counts == 0, (-zero.expm1()).log())

    def expected(self, px: Any) -> Tensor:
        """Return the expected counts, never negative, ``(..., n_cells, n_features)``."""
        mean: Tensor = px.mean
        return mean.clamp_min(0)

    def posterior(self, px: Any, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of what a second measurement of the same cell would expect.

        Where a count is a Poisson draw of a rate that itself varies around what z says of it, the
        count says which: the mean lies between the decoder's and the count. Where it is not, z has
        said everything that is known, and the variance is zero.

        Parameters
        ----------
        px
            The distribution, ``(..., n_cells, n_features)``.
        counts
            What was measured, ``(n_cells, n_features)``.
        """
        mean = self.expected(px)
        return mean, torch.zeros_like(mean)

    @abstractmethod
    def parameters_of(self, px: Any) -> dict[str, Tensor]:
        """Return what :meth:`forward` put into a distribution, by scvi-tools' names.

        Each has the distribution's shape, ``(..., n_cells, n_features)``.
        """
