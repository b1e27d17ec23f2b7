"""Conditions that are left out in turn, and the sums of counts that predictions may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from betavi.module.effect_groups import groups_of, sums_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from betavi.data.conditions import Conditions
    from betavi.diagnostics.effects import GroupSums
    from betavi.model.core.latent_model import LatentModel
    from betavi.module.effect_groups import Groups


Key = tuple[tuple[int, ...], tuple[float, ...] | None, int]
"""Perturbations, doses and context of a condition."""


class Fold(NamedTuple):
    """One condition that is left out.

    ``name`` is its name, ``parts`` the codes of its perturbations, ``doses`` theirs, ``context`` the code
    of its context, and ``held_out`` the mask of its groups of cells, ``(n_groups,)``.
    """

    name: str
    parts: tuple[int, ...]
    doses: tuple[float, ...] | None
    context: int
    held_out: np.ndarray


class Measured(NamedTuple):
    """Sums of counts over groups of cells, in two halves of the cells.

    ``halves`` are those of each half, and ``sums`` those of all cells.
    """

    groups: Groups
    sums: GroupSums
    halves: list[np.ndarray]


def measured(model: LatentModel, rng: np.random.Generator) -> Measured:
    """Return the sums over all cells of the model's object, and over random halves of each group."""
    cells = np.arange(model.adata.n_obs)
    groups = groups_of(model.adata_manager, cells)
    n_groups, half = len(groups.codes), halves_of(groups.member, rng)
    doubled = groups._replace(
        codes=np.concatenate([groups.codes] * 2), member=groups.member + n_groups * half
    )
    both = sums_of(model.adata_manager, cells, doubled)
    sums = type(both)(*(part[:n_groups] + part[n_groups:] for part in both))
    return Measured(groups, sums, [both.counts[:n_groups], both.counts[n_groups:]])


def halves_of(member: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return codes of random halves, 0 or 1, that are equally large in each group, ``(n_cells,)``."""
    half = np.empty(len(member), dtype=np.int64)
    order = rng.permutation(len(member))
    order = order[np.argsort(member[order], kind="stable")]
    # cells of a group stand together, in random order
    half[order] = (
        np.arange(len(order)) + rng.integers(2, size=member.max() + 1)[member[order]]
    ) % 2
    return half


def condition_of(
    conditions: Conditions, code: np.ndarray
) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """Return the perturbations and the doses of a group, in the order of the perturbations."""
    row = conditions.parts[code[0]]
    parts = row[row >= 0]
    order = np.argsort(parts)
    if conditions.doses is None:
        return tuple(parts[order].tolist()), None
    return tuple(parts[order].tolist()), tuple(
        conditions.doses[code[1]][: len(parts)][order].tolist()
    )


def folds_of(conditions: Conditions, groups: Groups, split: str) -> list[Fold]:
    """Return the conditions that a split leaves out in turn."""
    keys = [(*condition_of(conditions, code), int(code[2])) for code in groups.codes]
    return [
        Fold(
            _name(conditions, parts, doses, context),
            parts,
            doses,
            context,
            np.array([key == (parts, doses, context) for key in keys]),
        )
        for parts, doses, context in dict.fromkeys(keys)
        if parts and SPLITS[split](keys, (parts, doses, context))
    ]


def _name(
    conditions: Conditions, parts: tuple[int, ...], doses: tuple[float, ...] | None, context: int
) -> str:
    name = conditions.separator.join(conditions.perturbations[part] for part in parts)
    if doses is not None:
        name += " at " + conditions.separator.join(f"{dose:g}" for dose in doses)
    return f"{name} in {conditions.contexts[context]}" if len(conditions.contexts) > 1 else name


def _is_combination(keys: list[Key], key: Key) -> bool:
    """Return True for a combination whose perturbations were all measured alone in its context."""
    parts, _, context = key
    alone = {(other[0], other[2]) for other in keys}
    return len(parts) > 1 and all(((part,), context) in alone for part in parts)


def _is_in_other_context(keys: list[Key], key: Key) -> bool:
    """Return True if the condition was measured in another context, and its context has controls."""
    elsewhere = any(other[:2] == key[:2] and other[2] != key[2] for other in keys)
    return elsewhere and any(not other[0] and other[2] == key[2] for other in keys)


def _is_at_other_dose(keys: list[Key], key: Key) -> bool:
    """Return True if the same perturbations were measured at another dose in this context."""
    return any(other[0] == key[0] and other[2] == key[2] and other[1] != key[1] for other in keys)


SPLITS: dict[str, Callable[[list[Key], Key], bool]] = {
    "combination": _is_combination,
    "context": _is_in_other_context,
    "dose": _is_at_other_dose,
}
"""Test of a condition that a split leaves out, by the split's name."""

NEEDED = {
    "combination": "A combination is needed whose perturbations were also measured alone.",
    "context": "A condition is needed that was measured in two contexts. Pass `context_key` to setup_anndata.",
    "dose": "A perturbation is needed that was measured at two doses. Pass `dose_key` to setup_anndata.",
}
"""Conditions that a split needs, by the split's name."""
