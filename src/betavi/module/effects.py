"""Module with effects of perturbations on the log rates of one modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from scvi import REGISTRY_KEYS

from betavi.data import COUNTS
from betavi.data.conditions import CONTEXT, DOSE, PERTURBATION
from betavi.kernels.sparse import multiplied
from betavi.module.effect_fit import CURVES, STORED, start_effects, stored_estimate
from betavi.module.single import BetaVAE
from betavi.nn.effects import EffectDesign, EffectHead, EffectStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from betavi.data.conditions import Conditions
    from betavi.nn import Decoder

Tensors = dict[str, Any]

DESIGN = "design"
"""Key of a design in a minibatch that replaces the one of the cells' own conditions."""

LOG_LINEAR = ("nb", "poisson", "zinb")
"""Likelihoods of counts whose mean is a share of the library size, so that effects multiply it."""


class EffectVAE(BetaVAE):
    """:class:`BetaVAE` whose log rates also have effects of the cell's perturbations.

    Parameters
    ----------
    conditions
        Names and codes of the conditions.
    **kwargs
        Arguments of :class:`BetaVAE`.

    Raises
    ------
    ValueError
        If the likelihood's mean is not a share of the library size, or the dispersion is decoded.

    Examples
    --------
    >>> from betavi.data.conditions import Conditions
    >>> from betavi.module.effects import EffectVAE
    >>> conditions = Conditions.of_names(["A", "control"], "control")
    >>> EffectVAE(conditions, n_input=30, n_batch=1).head.effects.shape
    torch.Size([1, 30])
    """

    def __init__(self, conditions: Conditions, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        likelihood = self.likelihood(COUNTS)
        if self.gene_likelihood not in LOG_LINEAR or not likelihood.positive.needs_all:
            raise ValueError(
                f"Effects need counts with a library size: gene_likelihood must be one of {LOG_LINEAR}, "
                f"not {self.gene_likelihood!r}, without size factors."
            )
        if self.options.dispersion == "gene-cell":
            raise ValueError(
                "dispersion='gene-cell' is not available with effects. Use 'gene', 'gene-batch' or "
                "'gene-label'."
            )
        self.effect_design = EffectDesign(conditions)
        curves = () if conditions.doses is None else CURVES
        self.effect_statistics = EffectStatistics((*STORED, *curves))
        n_columns = len(self.effect_design.kinds)
        for name in likelihood.compiled_layers:
            setattr(likelihood, name, EffectHead(getattr(likelihood, name), n_columns))

    start_effects = start_effects
    stored_estimate = stored_estimate

    def without_effects(self, counts: Tensor, design: Tensor) -> Tensor:
        """Return counts divided by the fold changes of their cell's condition.

        With these, the states of the cells hardly depend on the condition.
        """
        return multiplied(counts, torch.exp(-(design @ self.head.effects)))

    def start_programs_at(self, programs: Mapping[str, Tensor]) -> None:
        """Start the decoder's programs. The output layer of the states stands inside that of the effects."""
        for name, part in programs.items():
            cast("Decoder", self.decoders[name]).start_at(self.head.state, part)

    @property
    def head(self) -> EffectHead:
        """Output layer of the log rates."""
        return cast("EffectHead", self.likelihood(COUNTS).unscaled)

    def design(self, tensors: Tensors) -> Tensor | None:
        """Return the design of a minibatch, ``(n_cells, n_columns)``. Without conditions, none."""
        if DESIGN in tensors:
            return cast("Tensor", tensors[DESIGN]).to(self.device)
        if PERTURBATION not in tensors:
            n_cells = len(tensors[REGISTRY_KEYS.BATCH_KEY])
            return self.head.effects.new_zeros(n_cells, len(self.head.effects))
        keys = (PERTURBATION, DOSE, CONTEXT)
        codes = (
            tensors[key].to(self.device).squeeze(-1) if key in tensors else None for key in keys
        )
        found: Tensor = self.effect_design(*codes)
        return found
