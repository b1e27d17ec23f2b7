"""Warnings about conditions whose effects cannot be estimated from the training cells."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from scvi import settings

from betavi.data.conditions import PERTURBATION, Conditions
from betavi.nn.effects import DEVIATION, INTERACTION, MAIN

if TYPE_CHECKING:
    from betavi.data import CellManager
    from betavi.module.effect_fit import EffectEstimate
    from betavi.module.effect_groups import Groups

N_NAMED = 5
"""Number of names that a message lists. Further names are only counted."""


def warn_unknown(estimate: EffectEstimate, manager: CellManager, groups: Groups) -> None:
    """Warn of conditions without training cells, and of effects that cannot be separated."""
    conditions = Conditions.of_registry(manager.registry)
    if missing := without_cells(manager, groups):
        _warn(
            f"All cells of {_listed(missing)} are held out from training. Their effects are unknown, and "
            "`predict` uses the prior. Pass a larger `train_size`, or leave out conditions with few cells."
        )
    if found := confounded(estimate, conditions, groups):
        names = [f"{name!r} (with {_listed(others)})" for name, others in found.items()]
        _warn(
            f"Effects that cannot be separated: {_joined(names)}. They never vary separately. `predict` "
            "returns wide intervals and is_measured=False for each alone. Measure them separately, "
            "with controls in each batch and context."
        )


def without_cells(manager: CellManager, groups: Groups) -> list[str]:
    """Return the names of the conditions that have cells, but no training cells."""
    state = manager.get_state_registry(PERTURBATION)
    codes = np.unique(np.asarray(manager.get_from_registry(PERTURBATION)).astype(np.int64))
    missing = np.setdiff1d(codes, groups.codes[:, 0])
    return [str(state["categorical_mapping"][code]) for code in missing]


def confounded(
    estimate: EffectEstimate, conditions: Conditions, groups: Groups
) -> dict[str, list[str]]:
    """Return the names of effects that are not determined, and of those that vary with them."""
    measured = {
        (int(part), int(context))
        for condition, _, context in groups.codes[:, :3]
        for part in conditions.parts[condition]
        if part >= 0
    }
    if not measured:
        return {}
    chosen = sorted(measured)
    levels = [estimate.design.full_row(part, context) for part, context in chosen]
    found: dict[str, list[str]] = {}
    for (part, context), rest in zip(chosen, estimate.undetermined(np.stack(levels)), strict=True):
        if rest.any():
            name = conditions.perturbations[part]
            if len(conditions.contexts) > 1:
                name += f" in {conditions.contexts[context]}"
            names = column_names(estimate, conditions)
            others = dict.fromkeys(names[column] for column in np.flatnonzero(rest))
            found[name] = [other for other in others if other and other != name]
    return found


def column_names(estimate: EffectEstimate, conditions: Conditions) -> list[str]:
    """Return the names of the columns of the design. Deviations have none."""
    n_contexts = len(estimate.bases)
    base = ["control"] + ["context"] * (n_contexts - 1)
    base += ["batch"] * (estimate.n_base - len(base))
    named = {MAIN: conditions.perturbations, INTERACTION: conditions.pair_names}
    n_deviations = int((estimate.kinds == DEVIATION).sum())
    return [*base, *named[MAIN], *named[INTERACTION], *[""] * n_deviations]


def _listed(names: list[str]) -> str:
    return _joined([repr(name) for name in names])


def _joined(names: list[str]) -> str:
    more = len(names) - N_NAMED
    return ", ".join(names[:N_NAMED]) + (f" and {more} more" if more > 0 else "")


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel)
