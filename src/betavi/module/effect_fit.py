"""Estimation of a module's effects, from sums of counts over groups of cells."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from betavi.diagnostics.effects import EffectPosterior, ScaleMixture, fit_effects, inflation
from betavi.diagnostics.effects.doses import DoseCurves, curve_weights, hill
from betavi.diagnostics.effects.groups import inflation_of_groups, log_shares
from betavi.module.effect_groups import groups_of, sums_of
from betavi.module.effect_warnings import warn_unknown
from betavi.nn.effects import BASE, MAIN

if TYPE_CHECKING:
    from betavi.data import CellManager
    from betavi.diagnostics.effects import GroupSums
    from betavi.module.effects import EffectVAE
    from betavi.nn.effects import EffectDesign

POSTERIOR = ("mean", "rows", "weights", "precision", "shift", "noise", "freedom")
ESTIMATE = ("kinds", "profile", "bases", "inflation", "measured")
CURVES = ("grid_log_ec50", "grid_log_slope", "grid_weights")
STORED = (*POSTERIOR, "scale_weights", "scales", *ESTIMATE)
"""Names of the arrays that a module stores of its effects. With doses, also those of the curves."""

N_ROUNDS, N_REFINED = 4, 3
"""Numbers of times that effects and dose curves are estimated in turn, before and after the grid of
curves is refined. Not tuned."""


class EffectEstimate(NamedTuple):
    """Estimated effects of a module, and what predictions need besides.

    Parameters
    ----------
    posterior
        Posterior of base levels and effects.
    kinds
        Kind of each column of the design, ``(n_columns,)``.
    profile
        Log share of each gene in all counts, ``(n_genes,)``, to which base levels are added.
    bases
        Mean base levels of the cells of each context, ``(n_contexts, n_base)``.
    inflation
        Variance of counts over their mean, ``(n_genes,)``.
    measured
        Codes of condition, dose and context of all groups of cells, ``(n_measured, 3)``.
    design
        Design of the effects, with the estimated dose curves.
    curves
        Posterior of the dose curves. None without doses.
    """

    posterior: EffectPosterior
    kinds: np.ndarray
    profile: np.ndarray
    bases: np.ndarray
    inflation: np.ndarray
    measured: np.ndarray
    design: EffectDesign
    curves: DoseCurves | None

    @property
    def n_base(self) -> int:
        """Number of base levels, the first columns."""
        return self.bases.shape[1]

    def doses_of(self, part: int, *, alone: bool = False) -> np.ndarray:
        """Return the doses of cells with a perturbation. See :func:`doses_of`."""
        return doses_of(self.design, self.measured, part, alone=alone)

    def undetermined(self, values: np.ndarray) -> np.ndarray:
        """Return the part of conditions that the counts do not determine, ``(n_conditions, n_columns)``.

        ``values`` are those of the effects, ``(n_conditions, n_effects)``.
        """
        contrasts = np.hstack([np.zeros((len(values), self.n_base)), values])
        return self.posterior.undetermined(contrasts)

    def is_determined(self, values: np.ndarray) -> np.ndarray:
        """Return a mask of the conditions whose sum of effects the counts determine."""
        found: np.ndarray = (self.undetermined(values) == 0).all(axis=1)
        return found


def doses_of(
    design: EffectDesign, codes: np.ndarray, part: int, *, alone: bool = False
) -> np.ndarray:
    """Return the doses of a perturbation in groups of cells with these codes, sorted.

    With ``alone``, those without another perturbation, from which curves are estimated, if there are any.
    """
    assert design.doses is not None
    parts, doses = design.parts.numpy()[codes[:, 0]], design.doses.numpy()[codes[:, 1]]
    is_part = parts == part
    is_alone = is_part & ((parts >= 0).sum(axis=1, keepdims=True) == 1)
    found: np.ndarray = np.unique(doses[is_alone if alone and is_alone.any() else is_part])
    return found.astype(float)


def base_design(codes: np.ndarray, n_contexts: int, n_batches: int) -> np.ndarray:
    """Return the base levels of groups: a constant, other contexts, other batches."""
    contexts, batches = np.eye(n_contexts)[codes[:, 2]], np.eye(n_batches)[codes[:, 3]]
    return np.column_stack([np.ones(len(codes)), contexts[:, 1:], batches[:, 1:]])


def estimate_effects(module: EffectVAE, codes: np.ndarray, sums: GroupSums) -> EffectEstimate:
    """Return the effects that are estimated from groups of cells with these codes and sums."""
    design, spread = deepcopy(module.effect_design).cpu(), inflation(sums)
    base = base_design(codes, design.n_contexts, max(module.sizes.n_batch, 1))
    kinds = np.concatenate([np.full(base.shape[1], BASE), design.kinds.numpy()])

    def fitted() -> EffectPosterior:
        effects = design(*torch.as_tensor(codes[:, :3]).T).double().numpy()
        return fit_effects(sums.counts, np.column_stack([base, effects]), kinds, spread)

    curves = None
    if design.doses is not None:
        measured = [doses_of(design, codes, part, alone=True) for part in range(len(design.slope))]
        # the dose of a perturbation without cells does not matter
        measured = [each if len(each) else np.ones(1) for each in measured]
        curves = DoseCurves.start(measured)
        for step in range(N_ROUNDS + N_REFINED):
            design.set_curves(*curves.means())
            curves = curves.refined(measured) if step >= N_ROUNDS else curves
            curves = updated_curves(curves, design, fitted(), codes, sums, base, spread)
        design.set_curves(*curves.means())
    posterior = fitted()
    # contexts without cells have the mean of all cells
    member = np.eye(design.n_contexts)[codes[:, 2]].T * sums.n_cells
    member[member.sum(axis=1) == 0] = sums.n_cells
    bases = member @ base / member.sum(axis=1, keepdims=True)
    profile, known = log_shares(sums.counts), np.unique(codes[:, :3], axis=0)
    return EffectEstimate(posterior, kinds, profile, bases, spread, known, design, curves)


def updated_curves(
    curves: DoseCurves,
    design: EffectDesign,
    posterior: EffectPosterior,
    codes: np.ndarray,
    sums: GroupSums,
    base: np.ndarray,
    spread: np.ndarray,
) -> DoseCurves:
    """Return the curves given the effects, from groups with one perturbation."""
    condition, dose, context = torch.as_tensor(codes[:, :3]).T
    assert design.doses is not None
    parts, doses = design.parts[condition].numpy(), design.doses[dose].numpy()
    effects = design(condition, dose, context).double().numpy()
    n_base, weights = base.shape[1], curves.weights.copy()
    change = effects @ posterior.mean[n_base:]
    rate = np.exp(log_shares(sums.counts) + base @ posterior.mean[:n_base] + change)
    rate *= (sums.counts.sum(axis=1) / rate.sum(axis=1))[:, None]
    responses = change + sums.counts / rate - 1
    information = rate / (inflation_of_groups(spread, rate) + posterior.noise * rate)
    prior = posterior.prior
    shared = prior.shared(MAIN)
    contrast = np.append(base.mean(axis=0), np.zeros(effects.shape[1]))
    base_variance = posterior.covariance(contrast[None])[:, 0, 0]
    for part in range(len(weights)):
        alone = (parts[:, 0] == part) & (parts[:, 1:] < 0).all(axis=1)
        if len(np.unique(doses[alone, 0])) > 1:
            levels = hill(doses[alone, 0], *(each[:, None] for each in curves.points(part)))
            found = curve_weights(
                levels, responses[alone], information[alone], base_variance, shared, prior.scales
            )
            weights[part] = found.reshape(weights[part].shape)
    return curves._replace(weights=weights)


def start_effects(module: EffectVAE, manager: CellManager, cells: np.ndarray) -> None:
    """Estimate the effects from some cells, and store them in the module."""
    groups = groups_of(manager, cells)
    found = estimate_effects(module, groups.codes, sums_of(manager, cells, groups))
    warn_unknown(found, manager, groups)
    is_effect = found.kinds != BASE
    module.head.effects.copy_(torch.as_tensor(found.posterior.mean[is_effect]))
    module.effect_design.load_state_dict(found.design.state_dict())
    arrays = found.posterior.prior._asdict() | found.posterior._asdict() | found._asdict()
    stored = {name: arrays[name] for name in STORED}
    if found.curves is not None:
        stored |= dict(zip(CURVES, found.curves, strict=True))
    module.effect_statistics.store({name: torch.as_tensor(each) for name, each in stored.items()})


def stored_estimate(module: EffectVAE) -> EffectEstimate:
    """Return the stored effects. Raise a RuntimeError if they are missing."""
    if not module.effect_statistics.is_stored:
        raise RuntimeError(
            "The effects were not estimated, because the model was trained on minibatches without conditions. "
            "Train it on a registered object, or on a betavi.data.StoreDataModule."
        )

    def stored(name: str) -> np.ndarray:
        array: np.ndarray = module.effect_statistics.get(name).cpu().numpy()
        return array

    kinds, design = stored("kinds"), deepcopy(module.effect_design).cpu()
    estimated = kinds[stored("rows").any(axis=0)]
    prior = ScaleMixture(stored("scale_weights"), estimated[estimated != BASE], stored("scales"))
    arrays = {name: stored(name) for name in (*POSTERIOR, *ESTIMATE)}
    posterior = EffectPosterior(**{name: arrays[name] for name in POSTERIOR}, prior=prior)
    curves = None if design.doses is None else DoseCurves(*map(stored, CURVES))
    others = {name: arrays[name] for name in ESTIMATE}
    return EffectEstimate(posterior, **others, design=design, curves=curves)
