"""Encoders: fully connected networks that also read covariates.

scvi-tools' query mapping freezes layers by the names ``encoder``, ``px_decoder``, ``l_encoder``.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from scvi.nn import FCLayers
from torch import Tensor, nn
from torch.distributions import Normal

from betavi._tables import check_fields, check_whole, lookup
from betavi.kernels import dense
from betavi.kernels.layers import CountsLinear
from betavi.nn.beta_condition import BetaLinear, condition_on_beta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from betavi.nn.beta_condition import BetaCondition

VARIANCE_FLOOR = 1e-4
"""Smallest variance of a posterior, as in SCVI."""

_SIDES: dict[str, tuple[bool, bool]] = {
    "both": (True, True),
    "encoder": (True, False),
    "decoder": (False, True),
    "none": (False, False),
}


@dataclass(frozen=True)
class Architecture:
    """Architecture of the networks, with SCVI's names and defaults.

    Parameters
    ----------
    n_hidden
        Width of the hidden layers of encoder and decoder.
    n_layers
        Number of hidden layers of the encoder, and of the decoder.
    dropout_rate
        Share of the encoder's hidden units dropped during training.
    use_batch_norm, use_layer_norm
        Networks to normalise: ``"encoder"``, ``"decoder"``, ``"both"`` or ``"none"``.
    deeply_inject_covariates
        Pass covariates to every layer, not only to the first.
    var_activation
        Function that makes the posterior variance positive. If None, :func:`torch.exp`.
    extra_encoder_kwargs, extra_decoder_kwargs
        Passed to :class:`~scvi.nn.FCLayers`.

    Raises
    ------
    ValueError
        If a size is not a whole number of at least 1.

    Examples
    --------
    >>> from betavi.nn import Architecture
    >>> Architecture(n_layers=2).encoder_options()["n_hidden"]
    128
    """

    n_hidden: int = 128
    n_layers: int = 1
    dropout_rate: float = 0.1
    use_batch_norm: str = "both"
    use_layer_norm: str = "none"
    deeply_inject_covariates: bool = True
    var_activation: Callable[[Tensor], Tensor] | None = None
    extra_encoder_kwargs: dict[str, Any] | None = field(default=None)
    extra_decoder_kwargs: dict[str, Any] | None = field(default=None)

    def __post_init__(self) -> None:
        check_fields(self)
        check_whole("n_hidden", self.n_hidden)
        check_whole("n_layers", self.n_layers)
        if not isinstance(self.dropout_rate, Real) or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                f"dropout_rate must be a share from 0 to below 1, not {self.dropout_rate!r}."
            )

    def encoder_options(self) -> dict[str, Any]:
        """Return the arguments of an encoder's layers."""
        return self._options(0, dropout_rate=self.dropout_rate) | (self.extra_encoder_kwargs or {})

    def decoder_options(self) -> dict[str, Any]:
        """Return the arguments of a decoder's layers, without dropout as in SCVI."""
        return self._options(1, dropout_rate=0.0) | (self.extra_decoder_kwargs or {})

    def _options(self, side: int, dropout_rate: float) -> dict[str, Any]:
        return {
            "n_hidden": self.n_hidden,
            "dropout_rate": dropout_rate,
            "inject_covariates": self.deeply_inject_covariates,
            "use_batch_norm": lookup(_SIDES, self.use_batch_norm, "use_batch_norm")[side],
            "use_layer_norm": lookup(_SIDES, self.use_layer_norm, "use_layer_norm")[side],
        }


class CountsLayers(FCLayers):
    """scvi-tools' layers, with a first layer that also reads CSR counts."""

    def __init__(self, n_in: int, **kwargs: Any) -> None:
        super().__init__(n_in=n_in, **kwargs)
        first = self.fc_layers[0][0]
        if first.bias is not None:
            self.fc_layers[0][0] = CountsLinear(first.in_features, first.out_features)

    def forward(self, x: Tensor, *categories: Tensor) -> Tensor:
        """Return the last hidden layer, ``(n_cells, n_hidden)``."""
        if x.ndim > 2 or self.n_cov:
            return super().forward(dense(x), *categories)
        # scvi-tools' own method copies every count to append covariates, even without covariates
        for layer in chain.from_iterable(self.fc_layers):
            x = x if layer is None else layer(x)
        return x


class Encoder(nn.Module):
    """Expert: a normal distribution of z given one modality of a cell.

    Parameters
    ----------
    n_input
        Number of features and continuous covariates.
    n_output
        Number of dimensions of the distribution.
    n_categories
        Number of categories of each categorical covariate. These covariates are passed as codes.
    architecture
        Architecture of the network.
    n_layers
        Number of hidden layers. If None, the number in ``architecture``.
    beta_condition
        Only for a model trained on a range of β: the β of the module.

    Reference: Kingma & Welling (2014), Auto-encoding variational Bayes.

    Examples
    --------
    >>> from betavi.nn import ENCODERS, Architecture
    >>> ENCODERS["plain"](30, 10, [], Architecture())(torch.zeros(5, 30)).mean.shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_categories: Sequence[int],
        architecture: Architecture,
        n_layers: int | None = None,
        beta_condition: BetaCondition | None = None,
    ) -> None:
        super().__init__()
        n_hidden = architecture.n_hidden
        self.encoder = CountsLayers(
            n_in=n_input,
            n_out=n_hidden,
            n_cat_list=n_categories,
            n_layers=n_layers or architecture.n_layers,
            **architecture.encoder_options(),
        )
        self.mean = nn.Linear(n_hidden, n_output)
        self.variance = nn.Linear(n_hidden, n_output)
        self.var_activation = architecture.var_activation or torch.exp
        self.turns = None
        if beta_condition is not None:
            condition_on_beta(self.encoder, beta_condition)
            self.turns = nn.ModuleList(
                BetaLinear(n_hidden, n_output, beta_condition) for _ in range(2)
            )

    def forward(self, x: Tensor, *categories: Tensor) -> Normal:
        """Return q, ``(n_cells, n_output)``, for values ``(n_cells, n_input)`` and codes."""
        h = self.encoder(x, *categories)
        mean, raw_variance = self.mean(h), self.variance(h)
        if self.turns is not None:
            mean, raw_variance = mean + self.turns[0](h), raw_variance + self.turns[1](h)
        variance = self.var_activation(raw_variance) + VARIANCE_FLOOR
        return Normal(mean, variance.sqrt(), validate_args=False)


def evaluating(part: nn.Module) -> AbstractContextManager[None]:
    """Put a module in evaluation mode inside a ``with`` block."""
    return in_mode(part, training=False)


@contextmanager
def in_mode(part: nn.Module, *, training: bool) -> Iterator[None]:
    """Put a module in training or evaluation mode inside a ``with`` block."""
    was_training = part.training
    part.train(training)
    try:
        yield
    finally:
        part.train(was_training)
