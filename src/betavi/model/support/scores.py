"""How strange cells are: how thin it is where they lie, and how badly they are explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from betavi.data import present_key
from betavi.diagnostics import CellScores
from betavi.kernels import dense, totals
from betavi.model.core._transition import Transition

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.diagnostics import LatentDensity

N_REPLICATES = 8
"""Cells drawn from what a position decodes to, beside which its counts are set."""

N_WORST = 50
"""Features of a cell, those explained worst, that are to say whether it is explained at all: what a
type that the model has not seen is known by drowns in the noise of thousands of others."""

SEED = 0


class SurpriseMixin(Transition):
    """Scores of cells, each of which depends on the cell alone, and not on others asked about along."""

    @torch.inference_mode()
    def _scores(self, tensors: dict[str, Any], density: LatentDensity) -> CellScores:
        """Judge the cells of a minibatch."""
        inferred = self._inferred(tensors)
        mean = inferred["qz"].mean
        # of a library size that is inferred, its mean
        sizes = inferred["library"] | {name: size.mean for name, size in inferred["ql"].items()}
        at_mean = {"z": self.module.latent.transform(mean), "library": sizes}
        inputs = self.module._get_generative_input(tensors, at_mean)
        excess = self._excess(tensors, inputs, len(mean))
        log_depth = self._depth(tensors).clamp_min(1.0).log()
        log_density = density.log_prob(mean.cpu().numpy())
        others = (part.double().cpu().numpy() for part in (excess, log_depth))
        return CellScores(log_density, *others)

    def _depth(self, tensors: dict[str, Any]) -> Tensor:
        """Return the total of each cell, ``(n_cells,)``."""
        parts = [totals(tensors[name]) for name in self._measures_of_depth]
        return torch.cat(parts, dim=1).sum(dim=1)

    @property
    def _measures_of_depth(self) -> list[str]:
        """Modalities whose counts say how deep a cell was sequenced: all if none are counts."""
        parts = self.module.likelihoods
        return [name for name, part in parts.items() if part.is_of_counts] or list(parts)

    @property
    def _counts_are_depth(self) -> bool:
        """Whether the depth is a number of molecules, of which there may be none."""
        return any(part.is_of_counts for part in self.module.likelihoods.values())

    def _excess(self, tensors: dict[str, Any], inputs: dict[str, Any], n_cells: int) -> Tensor:
        """Return by how many nats the worst features are worse than drawn ones, ``(n_cells,)``."""
        expected = self._worst_of_drawn(inputs, n_cells)
        total = torch.zeros(n_cells, device=self.device)
        for name, px in self.module.decoded(**inputs).items():
            off = _worst(px, dense(tensors[name]).to(self.device)) - expected[name]
            if (key := present_key(name)) in tensors:
                off = off.where(tensors[key].to(self.device).squeeze(-1).bool(), 0.0)
            total = total + off
        return total

    def _worst_of_drawn(self, inputs: dict[str, Any], n_cells: int) -> dict[str, Tensor]:
        """Return the expected nats of the worst features of drawn cells, ``(n_cells,)`` by modality.

        Every cell is given the same random numbers, so that its score is a function of the cell.
        """
        source: Any = torch if self.device.type == "cpu" else torch.get_device_module(self.device)
        found: dict[str, list[Tensor]] = {name: [] for name in self.module.likelihoods}
        with self._own_draws(SEED):
            start = source.get_rng_state()
            for cell in range(n_cells):
                # not by a seed, which PyTorch notes down for devices that are not in use yet
                source.set_rng_state(start)
                for name, px in self.module.decoded(**_of_cell(inputs, cell)).items():
                    drawn = self._drawn_from(name, px, N_REPLICATES)
                    found[name].append(_worst(px, drawn).mean())
        return {name: torch.stack(nats) for name, nats in found.items()}

    def _drawn_from(self, name: str, px: Any, *shape: int) -> Tensor:
        """Draw features; a normal distribution of counts may go below zero, where none are."""
        drawn: Tensor = px.sample(shape)
        return drawn.clamp_min(0) if self.module.likelihoods[name].is_of_counts else drawn


def _of_cell(inputs: Any, cell: int) -> Any:
    """Return what the decoder reads of one cell."""
    if isinstance(inputs, dict):
        return {name: _of_cell(values, cell) for name, values in inputs.items()}
    return None if inputs is None else inputs[cell : cell + 1]


def _worst(px: Any, x: Tensor) -> Tensor:
    """Return the nats of the features that are explained worst, ``(..., n_cells)``."""
    nats = -px.log_prob(x)
    worst: Tensor = nats.topk(min(N_WORST, nats.shape[-1]), dim=-1)[0]
    return worst.sum(dim=-1)
