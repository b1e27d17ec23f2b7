"""Interface of decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from betavi.nn.beta_condition import BetaCondition
    from betavi.nn.networks import Architecture


class Decoder(nn.Module, ABC):
    """Network from a cell's latent position to the last hidden layer of one modality.

    The output layers of the likelihood read this layer. scvi-tools' query mapping freezes the layers
    of covariates by the name ``px_decoder``.

    Parameters
    ----------
    n_latent
        Number of latent dimensions.
    n_values
        Number of continuous covariates, which are appended to z.
    n_categories
        Number of categories of each categorical covariate. These covariates are passed as codes.
    architecture
        Architecture of the network.
    beta_condition
        Only for a model trained on a range of β: the β of the module.

    Examples
    --------
    >>> from betavi.nn import DECODERS, Architecture
    >>> {name: DECODERS[name](10, 0, [], Architecture()).n_hidden for name in ("plain", "additive")}
    {'plain': 128, 'additive': 52}
    """

    starts_at_programs: ClassVar[bool] = False
    """True if training starts at programs of genes, see :meth:`start_at`."""

    of_images: ClassVar[bool] = False
    """True if the decoder is of images. It then takes a further argument, ``image``."""

    n_hidden: int
    """Width of the last hidden layer."""

    def __init__(
        self,
        n_latent: int,
        n_values: int,
        n_categories: Sequence[int],
        architecture: Architecture,
        beta_condition: BetaCondition | None = None,
    ) -> None:
        super().__init__()
        self.n_latent = n_latent

    @abstractmethod
    def forward(self, z: Tensor, *categories: Tensor) -> Tensor:
        """Return the last hidden layer, ``(..., n_cells, n_hidden)``.

        ``z`` is followed by the continuous covariates, ``(..., n_cells, n_latent + n_values)``.
        """

    def start_at(self, output: nn.Linear, programs: Tensor) -> None:
        """Start an output layer at programs, ``(n_latent, n_features)``. By default, change nothing."""
