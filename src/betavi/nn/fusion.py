"""Fusion rules: one posterior from the experts of a cell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from betavi.nn.mixtures import NormalMixture

Experts = Mapping[str, Normal]
"""Posteriors q(z given x_m) by modality, each ``(n_cells, n_latent)``."""

Masks = Mapping[str, Tensor]
"""Boolean masks by modality, ``(n_cells, 1)``, of the cells that have it."""


class Fusion(nn.Module, ABC):
    """Rule that combines the experts q(z given x_m) of a cell into one posterior q(z given x).

    A cell without any modality has the standard normal prior as its posterior.

    Examples
    --------
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.ones(1, 1), 1.0) for name in ("rna", "adt")}
    >>> q = FUSIONS["poe"]()(experts, present={"adt": torch.tensor([[False]])})
    >>> q.loc.item(), round(q.variance.item(), 3)
    (0.5, 0.5)
    """

    is_of_one: ClassVar[bool] = False
    """True for a rule that takes a single expert."""

    @abstractmethod
    def forward(self, experts: Experts, present: Masks) -> Normal | NormalMixture:
        """Return q(z given x), of shape ``(n_cells, n_latent)``.

        Rows of experts for cells that lack the modality are arbitrary, even NaN, and must not be
        used. A modality without a mask in ``present`` is present in every cell.
        """

    def full_posterior(self, q: Distribution) -> Normal | None:
        """Return the part of ``q`` that uses every modality of a cell, or None if there is none."""
        assert isinstance(q, Normal)
        return q

    def penalty(self, rate: Tensor, q: Distribution, experts: Experts, present: Masks) -> Tensor:
        """Return the term of the loss that β weighs, ``(n_cells,)``, in nats: the rate by default.

        ``q`` is the result of :meth:`forward` for these experts and masks.
        """
        return rate


class SingleExpert(Fusion):
    """The expert of the only modality is the posterior, as in SCVI.

    Reference: Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Examples
    --------
    >>> from betavi.nn import FUSIONS
    >>> FUSIONS["single"].is_of_one
    True
    """

    is_of_one = True

    def forward(self, experts: Experts, present: Masks) -> Normal:
        (expert,) = experts.values()
        return expert


class ProductOfExperts(Fusion):
    r"""Precision-weighted product of the experts present and the prior.

    With precisions :math:`\tau_m = 1 / \sigma_m^2`, zero where the modality is missing, the
    posterior has precision :math:`1 + \sum_m \tau_m` and mean
    :math:`\sum_m \tau_m \mu_m / (1 + \sum_m \tau_m)`.

    Reference: Wu & Goodman (2018), Multimodal generative models for scalable weakly-supervised
    learning.

    Examples
    --------
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.ones(1, 1), 1.0) for name in ("rna", "adt")}
    >>> q = FUSIONS["poe"]()(experts, present={})
    >>> round(q.loc.item(), 3), round(q.variance.item(), 3)
    (0.667, 0.333)
    """

    def forward(self, experts: Experts, present: Masks) -> Normal:
        return _product(_natural_parameters(experts, _masks(experts, present)).values())


class MixtureOfExperts(Fusion):
    """Mixture of the experts present, with equal weights.

    Every expert learns to explain the whole cell by itself, and none sharpens another.

    Reference: Shi et al. (2019), Variational mixture-of-experts autoencoders for multi-modal deep
    generative models.

    Examples
    --------
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.zeros(2, 1), 1.0) for name in ("rna", "adt")}
    >>> q = FUSIONS["moe"]()(experts, present={"adt": torch.tensor([[True], [False]])})
    >>> q.weights.t().tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """

    def forward(self, experts: Experts, present: Masks) -> NormalMixture:
        here = _masks(experts, present)
        parts = [_prior_where_missing(experts[name], here[name]) for name in experts]
        return _mixture(parts, [here[name].squeeze(1) for name in experts])

    def full_posterior(self, q: Distribution) -> Normal | None:
        """Return the experts if every cell has one only: of several, none uses all modalities."""
        assert isinstance(q, NormalMixture)
        is_alone = bool(((q.weights > 0).sum(dim=0) == 1).all())
        return q.last if is_alone else None


class MixtureOfProducts(Fusion):
    """Mixture of the products of experts over subsets of the modalities present.

    Subsets are single modalities, pairs, and all that are present. Up to three modalities thus have
    every subset, and masking a modality gives the same posterior as a model without it.

    Reference: Sutter et al. (2021), Generalized multimodal ELBO.

    Examples
    --------
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.zeros(1, 2), 1.0) for name in ("rna", "adt", "atac")}
    >>> len(FUSIONS["mopoe"]()(experts, present={}).weights)
    7
    """

    def forward(self, experts: Experts, present: Masks) -> NormalMixture:
        here = _masks(experts, present)
        naturals = _natural_parameters(experts, here)
        parts, exists = [], []
        for size in (1, 2):
            for subset in combinations(experts, size):
                parts.append(_product([naturals[name] for name in subset]))
                exists.append(torch.stack([here[name] for name in subset]).all(dim=0).squeeze(1))
        if len(experts) > 2:
            parts.append(_product(naturals.values()))
            exists.append(_n_present(here) > 2)
        return _mixture(parts, exists)

    def full_posterior(self, q: Distribution) -> Normal | None:
        """Return the product of all experts of each cell, its last component."""
        assert isinstance(q, NormalMixture)
        return q.last


class TotalCorrelation(Fusion):
    r"""Product of the experts present, trained so that every expert agrees with the product.

    The prior is not an expert here: a single expert is the posterior of a cell with nothing else.
    While training, the rate :math:`KL(q \| p)` of a cell with M modalities is replaced by

    .. math::

        \frac{M}{M - \alpha} \Big((1 - \alpha) \, KL(q \| p) + \frac{\alpha}{M} \sum_m KL(q \| q_m)\Big)

    This is the paper's objective divided by its weight of the distortion, so that a cell with one
    modality has the ELBO. Reported rates are those to the prior p.

    Reference: Hwang et al. (2021), Multi-view representation learning via total correlation
    objective.

    Examples
    --------
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.ones(1, 1), 0.5) for name in ("rna", "adt")}
    >>> q = FUSIONS["mvtcae"]()(experts, present={"adt": torch.tensor([[False]])})
    >>> round(q.loc.item(), 3), round(q.scale.item(), 3)
    (1.0, 0.5)
    """

    # α, as in the paper's experiments
    alpha: ClassVar[float] = 0.9

    def forward(self, experts: Experts, present: Masks) -> Normal:
        naturals = _natural_parameters(experts, _masks(experts, present))
        return _product(naturals.values(), prior=0.0)

    def penalty(self, rate: Tensor, q: Distribution, experts: Experts, present: Masks) -> Tensor:
        """Return the weighted sum of the rate and the KL divergences from the experts present."""
        here = _masks(experts, present)
        number = _n_present(here).clamp_min(1)
        total = torch.zeros_like(rate)
        for name, expert in experts.items():
            nats = kl_divergence(q, _prior_where_missing(expert, here[name])).sum(dim=-1)
            total = total + nats.where(here[name].squeeze(1), 0.0)
        shares = (1 - self.alpha) * rate + self.alpha * total / number
        return number / (number - self.alpha) * shares


def _masks(experts: Experts, present: Masks) -> dict[str, Tensor]:
    """Return a mask for every modality, ``(n_cells, 1)``."""
    everywhere = torch.ones_like(next(iter(experts.values())).loc[:, :1], dtype=torch.bool)
    return {name: present.get(name, everywhere) for name in experts}


def _n_present(here: Masks) -> Tensor:
    """Return the number of modalities of each cell, ``(n_cells,)``."""
    return torch.stack(list(here.values())).sum(dim=0).squeeze(1)


def _natural_parameters(experts: Experts, here: Masks) -> dict[str, tuple[Tensor, Tensor]]:
    """Return precision, and precision times mean, of each expert; zero where it is missing."""
    found = {}
    for name, expert in experts.items():
        tau = expert.scale.square().reciprocal()
        weighted = torch.where(here[name], tau * expert.loc, 0.0)
        found[name] = torch.where(here[name], tau, 0.0), weighted
    return found


def _product(naturals: Collection[tuple[Tensor, Tensor]], prior: float = 1.0) -> Normal:
    """Return the product of experts and of the prior to a power; the prior without experts."""
    total = torch.stack([tau for tau, _ in naturals]).sum(dim=0)
    precision = torch.where(total > 0, prior + total, 1.0)
    weighted = torch.stack([loc for _, loc in naturals]).sum(dim=0)
    return Normal(weighted / precision, precision.rsqrt(), validate_args=False)


def _prior_where_missing(expert: Normal, here: Tensor) -> Normal:
    """Return the expert, replaced by the prior in cells that lack the modality."""
    loc, scale = torch.where(here, expert.loc, 0.0), torch.where(here, expert.scale, 1.0)
    return Normal(loc, scale, validate_args=False)


def _mixture(parts: list[Normal], exists: list[Tensor]) -> NormalMixture:
    """Return the equal mixture of each cell's existing components, or of all if none exists."""
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
"""Fusion rules by the name a user gives, ``fusion=``."""
