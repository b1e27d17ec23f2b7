"""Conditions that are left out in turn, and the sums of counts that predictions may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from betavi.model.setup.messages import name_some, warn
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
    of its context, and ``held_out`` the mask of its groups of cells, ``(n_groups,)``. ``left_out`` are all
    groups that are left out with it, such as the same combination at other doses or with a third perturbation.
    """

    name: str
    parts: tuple[int, ...]
    doses: tuple[float, ...] | None
    context: int
    held_out: np.ndarray
    left_out: np.ndarray


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


def folds_of(conditions: Conditions, groups: Groups, split: str) -> list[Fold]:
    """Return the conditions that a split leaves out in turn, in contexts with control cells.

    Those with the same cells to leave out follow each other.
    """
    keys = [(*conditions.key_of(code), int(code[2])) for code in groups.codes]
    has_controls = {context for parts, _, context in keys if not parts}
    usable = [key for key in keys if key[2] in has_controls]
    if without := {key[2] for key in keys} - has_controls:
        warn(
            "Changes are scored against control cells, but some contexts have none: "
            f"{name_some([conditions.contexts[context] for context in sorted(without)])}. Their conditions "
            "are not left out. To score them, add control cells of these contexts."
        )
    rule = SPLITS[split]
    folds = [
        Fold(
            _name(conditions, *key),
            *key,
            held_out=np.array([other == key for other in keys]),
            left_out=np.array([rule.leaves_out(other, key) for other in keys]),
        )
        for key in dict.fromkeys(usable)
        if key[0] and rule.is_left_out(usable, key)
    ]
    places: dict[bytes, int] = {}
    return sorted(folds, key=lambda fold: places.setdefault(fold.left_out.tobytes(), len(places)))


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
    """Return True if the condition was measured in another context."""
    return any(other[:2] == key[:2] and other[2] != key[2] for other in keys)


def _is_at_other_dose(keys: list[Key], key: Key) -> bool:
    """Return True if the same perturbations were measured at another dose in this context."""
    return any(other[0] == key[0] and other[2] == key[2] and other[1] != key[1] for other in keys)


class Split(NamedTuple):
    """Rules of a split.

    ``is_left_out`` tells whether a condition is left out, given all conditions. ``leaves_out`` tells
    whether the cells of another condition are left out with it. ``needed`` are the conditions that the
    split needs.
    """

    is_left_out: Callable[[list[Key], Key], bool]
    leaves_out: Callable[[Key, Key], bool]
    needed: str


SPLITS = {
    "combination": Split(
        _is_combination,
        # a triple also holds the interaction of its pairs
        lambda other, key: set(key[0]) <= set(other[0]),
        "A combination is needed whose perturbations were also measured alone.",
    ),
    "context": Split(
        _is_in_other_context,
        lambda other, key: (other[0], other[2]) == (key[0], key[2]),
        "A condition is needed that was measured in two contexts with control cells. Pass `context_key` to "
        "setup_anndata.",
    ),
    "dose": Split(
        _is_at_other_dose,
        lambda other, key: other == key,
        "A perturbation is needed that was measured at two doses. Pass `dose_key` to setup_anndata.",
    ),
}
"""Rules of each split, by its name."""
