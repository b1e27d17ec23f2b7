"""Fusion: one posterior from the experts of a cell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from betavi.nn.mixtures import NormalMixture

if TYPE_CHECKING:
    from collections.abc import Mapping


class Fusion(nn.Module, ABC):
    """A rule that makes one posterior of the experts of a cell.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.ones(1, 1), 1.0) for name in ("rna", "adt")}
    >>> q = FUSIONS["poe"]()(experts, present={"adt": torch.tensor([[False]])})
    >>> q.loc.item(), round(q.variance.item(), 3)
    (0.5, 0.5)
    """

    is_of_one: ClassVar[bool] = False
    """Whether there may be only one expert."""

    @abstractmethod
    def forward(
        self, experts: Mapping[str, Normal], present: Mapping[str, Tensor]
    ) -> Normal | NormalMixture:
        """Return q(z given x), of shape ``(n_cells, n_latent)``.

        Parameters
        ----------
        experts
            q(z given x_m) by modality, each ``(n_cells, n_latent)``. The rows of cells that lack
            the modality are arbitrary.
        present
            Which cells have the modality, boolean, ``(n_cells, 1)``; a modality without an entry
            is present in every cell.
        """

    def informed(self, q: Distribution) -> Normal | None:
        """Return the part of a posterior that has seen everything a cell has, if there is one."""
        assert isinstance(q, Normal)
        return q

    def pressed(
        self,
        rate: Tensor,
        q: Distribution,  # for those that press something else
        experts: Mapping[str, Normal],
        present: Mapping[str, Tensor],
    ) -> Tensor:
        """Return what training presses down in the place of the rate, ``(n_cells,)``, in nats.

        Parameters
        ----------
        rate
            That of each cell, to the prior.
        q
            What :meth:`forward` made of the others.
        experts, present
            See there.
        """
        return rate


class SingleExpert(Fusion):
    """The posterior of one modality is its expert, as in SCVI.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> expert = Normal(torch.zeros(3, 2), 1.0)
    >>> FUSIONS["single"]()({"rna": expert}, present={}) is expert
    True
    """

    is_of_one: ClassVar[bool] = True

    def forward(self, experts: Mapping[str, Normal], present: Mapping[str, Tensor]) -> Normal:
        """Return the only expert.

        Raises
        ------
        ValueError
            If there are several.
        """
        (expert,) = experts.values()
        return expert


class ProductOfExperts(Fusion):
    r"""Precision-weighted product of the experts present and the prior's expert.

    With precisions :math:`\tau_m = 1 / \sigma_m^2`, zero where the modality is missing, the
    posterior has precision :math:`1 + \sum_m \tau_m` and mean
    :math:`\sum_m \tau_m \mu_m / (1 + \sum_m \tau_m)`. A cell without any modality has the prior.

    References
    ----------
    Wu & Goodman (2018), Multimodal generative models for scalable weakly-supervised learning.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.ones(1, 1), 1.0) for name in ("rna", "adt")}
    >>> q = FUSIONS["poe"]()(experts, present={})
    >>> round(q.loc.item(), 3), round(q.variance.item(), 3)
    (0.667, 0.333)
    """

    def forward(self, experts: Mapping[str, Normal], present: Mapping[str, Tensor]) -> Normal:
        """Return the product; a missing expert's values, even NaN, have no influence."""
        here = _here(experts, present)
        return _product([_of_present(experts[name], here[name]) for name in experts])


class MixtureOfExperts(Fusion):
    """Mixture of the experts present, each with the same weight.

    Every expert learns to explain the whole cell by itself, and none sharpens another. A cell
    without any modality has the prior.

    References
    ----------
    Shi et al. (2019), Variational mixture-of-experts autoencoders for multi-modal deep generative
    models.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.zeros(2, 1), 1.0) for name in ("rna", "adt")}
    >>> q = FUSIONS["moe"]()(experts, present={"adt": torch.tensor([[True], [False]])})
    >>> q.weights.t().tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """

    def forward(
        self, experts: Mapping[str, Normal], present: Mapping[str, Tensor]
    ) -> NormalMixture:
        """Return the mixture, with one component for each modality."""
        here = _here(experts, present)
        parts = [_with_prior_where_missing(experts[name], here[name]) for name in experts]
        return _mixture(parts, [here[name].squeeze(1) for name in experts])

    def informed(self, q: Distribution) -> Normal | None:
        """Return the only expert of each cell; nothing if there are several, none of which knows all."""
        assert isinstance(q, NormalMixture)
        is_alone = bool(((q.weights > 0).sum(dim=0) == 1).all())
        return q.last if is_alone else None


class MixtureOfProducts(Fusion):
    """Mixture of the products of experts over subsets of the modalities present.

    Subsets are single modalities, pairs, and all that are present, so that up to three modalities
    have every subset, and a cell has the same posterior whether further modalities are masked or do
    not exist. A cell without any modality has the prior.

    References
    ----------
    Sutter et al. (2021), Generalized multimodal ELBO.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.zeros(1, 2), 1.0) for name in ("rna", "adt", "atac")}
    >>> len(FUSIONS["mopoe"]()(experts, present={}).weights)
    7
    """

    def forward(
        self, experts: Mapping[str, Normal], present: Mapping[str, Tensor]
    ) -> NormalMixture:
        """Return the mixture, with one component for each subset."""
        here = _here(experts, present)
        naturals = {name: _of_present(experts[name], here[name]) for name in experts}
        parts, exists = [], []
        for size in (1, 2):
            for subset in combinations(experts, size):
                parts.append(_product([naturals[name] for name in subset]))
                exists.append(torch.stack([here[name] for name in subset]).all(dim=0).squeeze(1))
        if len(experts) > 2:
            n_present = torch.stack([here[name] for name in experts]).sum(dim=0).squeeze(1)
            parts.append(_product(list(naturals.values())))
            exists.append(n_present > 2)
        return _mixture(parts, exists)

    def informed(self, q: Distribution) -> Normal | None:
        """Return the product of all experts of each cell, its last component."""
        assert isinstance(q, NormalMixture)
        return q.last


class TotalCorrelation(Fusion):
    r"""Product of the experts present, with which every expert is to agree by itself.

    The prior is no expert here: what one expert alone says is a posterior already, and is that of a
    cell with nothing else. A cell without any modality has the prior.

    While training, the rate :math:`KL(q \| p)` gives way to

    .. math::

        \frac{M}{M - \alpha} \Big((1 - \alpha) \, KL(q \| p) + \frac{\alpha}{M} \sum_m KL(q \| q_m)\Big)

    of a cell with M modalities, with which an expert learns to say alone what it says in company.
    That is the paper's objective, divided by the weight that it gives to the distortion, so that a
    cell with a single modality has the ELBO. Reported rates are those of :math:`p`.

    References
    ----------
    Hwang et al. (2021), Multi-view representation learning via total correlation objective.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.ones(1, 1), 0.5) for name in ("rna", "adt")}
    >>> q = FUSIONS["mvtcae"]()(experts, present={"adt": torch.tensor([[False]])})
    >>> round(q.loc.item(), 3), round(q.scale.item(), 3)
    (1.0, 0.5)
    """

    # α, as in the paper's experiments
    alpha: ClassVar[float] = 0.9

    def forward(self, experts: Mapping[str, Normal], present: Mapping[str, Tensor]) -> Normal:
        """Return the product."""
        here = _here(experts, present)
        return _product([_of_present(experts[name], here[name]) for name in experts], prior=0.0)

    def pressed(
        self,
        rate: Tensor,
        q: Distribution,
        experts: Mapping[str, Normal],
        present: Mapping[str, Tensor],
    ) -> Tensor:
        """Return the rate and the KL to the experts present, by their shares."""
        here = _here(experts, present)
        number = torch.stack([here[name] for name in experts]).sum(dim=0).squeeze(1).clamp_min(1)
        total = torch.zeros_like(rate)
        for name, expert in experts.items():
            nats = kl_divergence(q, _with_prior_where_missing(expert, here[name])).sum(dim=-1)
            total = total + nats.where(here[name].squeeze(1), 0.0)
        shares = (1 - self.alpha) * rate + self.alpha * total / number
        return number / (number - self.alpha) * shares


def _here(experts: Mapping[str, Normal], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return which cells have each modality, ``(n_cells, 1)``."""
    everywhere = torch.ones_like(next(iter(experts.values())).loc[:, :1], dtype=torch.bool)
    return {name: present.get(name, everywhere) for name in experts}


def _of_present(expert: Normal, here: Tensor) -> tuple[Tensor, Tensor]:
    """Return precision, and precision times mean; zero where the expert is missing."""
    tau = expert.scale.square().reciprocal()
    return torch.where(here, tau, 0.0), torch.where(here, tau * expert.loc, 0.0)


def _product(naturals: list[tuple[Tensor, Tensor]], prior: float = 1.0) -> Normal:
    """Return the product of experts and of the prior's, to some power; the prior if there is none."""
    total = torch.stack([tau for tau, _ in naturals]).sum(dim=0)
    precision = torch.where(total > 0, prior + total, 1.0)
    weighted = torch.stack([loc for _, loc in naturals]).sum(dim=0)
    return Normal(weighted / precision, precision.rsqrt(), validate_args=False)


def _with_prior_where_missing(expert: Normal, here: Tensor) -> Normal:
    loc, scale = torch.where(here, expert.loc, 0.0), torch.where(here, expert.scale, 1.0)
    return Normal(loc, scale, validate_args=False)


def _mixture(parts: list[Normal], exists: list[Tensor]) -> NormalMixture:
    """Return the mixture of those components of each cell that exist, or of all if none does."""
    shares = torch.stack(exists).to(parts[0].loc)
    nowhere = shares.sum(dim=0) == 0
    shares = torch.where(nowhere, 1.0, shares)
    loc, scale = (torch.stack([getattr(part, name) for part in parts]) for name in ("loc", "scale"))
    return NormalMixture(loc, scale, shares / shares.sum(dim=0))


FUSIONS: dict[str, type[Fusion]] = {
    "single": SingleExpert,
    "poe": ProductOfExperts,
    "moe": MixtureOfExperts,
    "mopoe": MixtureOfProducts,
    "mvtcae": TotalCorrelation,
}
"""Fusion rules by the name a user gives."""
