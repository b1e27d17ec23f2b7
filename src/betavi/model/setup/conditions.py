"""Registration of the conditions of a perturbation screen, after all checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi.data import fields

from betavi._tables import close_matches
from betavi.data.conditions import (
    CONDITION_FIELDS,
    CONTEXT,
    DOSE,
    PERTURBATION,
    REPLICATE,
    Conditions,
    split_condition,
)
from betavi.data.doses import doses_of
from betavi.model.setup import check_obs
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

ARGUMENT = CONDITION_FIELDS[PERTURBATION]


def condition_fields(setup_args: Mapping[str, Any]) -> list[Any]:
    """Return the fields of the conditions in the arguments of a setup; none without conditions."""
    given = {key: setup_args.get(argument) for key, argument in CONDITION_FIELDS.items()}
    return [
        fields.CategoricalObsField(key, column)
        for key, column in given.items()
        if column is not None
    ]


def check_conditions(adata: AnnData, setup_args: Mapping[str, Any]) -> None:
    """Check the columns of the conditions in the arguments of a setup, if it has any.

    Raise a ValueError if a cell has no condition, a name cannot be split into perturbations, or a dose
    is not a number.
    """
    if ARGUMENT not in setup_args:
        return
    for name in ("control", "separator"):
        if not isinstance(setup_args[name], str) or not setup_args[name].strip():
            raise ValueError(f"`{name}` must be a text, not {setup_args[name]!r}.")
    if setup_args[ARGUMENT] is None:
        raise ValueError(f"`{ARGUMENT}` must be the name of a column of `obs`, not None.")
    columns = [setup_args.get(argument) for argument in CONDITION_FIELDS.values()]
    check_obs.check_categories(adata, columns, None)
    column = adata.obs[setup_args[ARGUMENT]].astype(str)
    control, separator = setup_args["control"], setup_args["separator"]
    _check_names(sorted(column.unique()), control, separator)
    if (dose_key := setup_args.get("dose_key")) is not None:
        _check_doses(adata, dose_key, column, control, separator)


def _check_names(names: list[str], control: str, separator: str) -> None:
    """Raise a ValueError if a name cannot be split into perturbations.

    A wrong control is the most frequent reason, and is named.
    """
    try:
        Conditions.of_names(names, control, separator)
    except ValueError as error:
        words = {word.strip() for name in names for word in name.split(separator)} - {""}
        if control.strip() in {*names, *words}:
            raise
        raise ValueError(
            f"{error} No cell has the `control` {control!r}. {close_matches(control, sorted(words))}"
        ) from None


OTHER_SEPARATORS = ("+", "|", "_", "&", ",", ";")
"""Separators that names are compared with if the given one is in none of them."""


def warn_separator(key: str, names: Sequence[str], control: str, separator: str) -> None:
    """Warn if names have another separator, between names that are conditions themselves."""
    if any(separator in name for name in names if name != control):
        return
    for other in OTHER_SEPARATORS:
        # the control may be a part of names: A|control
        words = {
            name: [word for word in map(str.strip, name.split(other)) if word != control]
            for name in names
        }
        alone = {each[0] for each in words.values() if len(each) == 1}
        if joined := [name for name, each in words.items() if len(each) > 1 and alone >= {*each}]:
            warn(
                f"No name in adata.obs[{key!r}] has the separator {separator!r}, so names such as "
                f"{name_some(joined)} are modelled as single perturbations. If they are combinations, pass "
                f"separator={other!r} to setup_anndata."
            )
            return


def check_is_screen(adata: AnnData, setup_args: Mapping[str, Any]) -> None:
    """Check the cells to train on: some are controls, others are not, and no category is empty.

    New cells of a trained model need not be a screen.
    """
    if ARGUMENT not in setup_args:
        return
    check_obs.check_all_used(adata, [setup_args.get(name) for name in CONDITION_FIELDS.values()])
    key, control = setup_args[ARGUMENT], setup_args["control"]
    names = adata.obs[key].astype(str).unique()
    perturbed = [bool(split_condition(name, control, setup_args["separator"])) for name in names]
    if all(perturbed):
        raise ValueError(
            f"adata.obs[{key!r}] has no control cells: `control` is {control!r}. "
            f"{close_matches(control, names)}"
        )
    if not any(perturbed):
        raise ValueError(
            f"adata.obs[{key!r}] has only control cells. Effects need perturbed cells."
        )
    warn_separator(key, names.tolist(), control, setup_args["separator"])


def _check_doses(adata: AnnData, dose_key: str, column: Any, control: str, separator: str) -> None:
    """Raise a ValueError if a perturbed cell has a dose of 0, or the doses do not fit its parts."""
    pairs = adata.obs[dose_key].groupby(column, observed=True).unique()
    for name, values in pairs.items():
        n_parts = len(split_condition(str(name), control, separator))
        for value in values.tolist():
            doses_of(str(name), n_parts, value, control, separator)


REMEDIES = {
    PERTURBATION: "Drop these cells. For new combinations, call predict() of the model.",
    DOSE: "Drop these cells. For new doses, call predict() of the model.",
    CONTEXT: "Drop these cells, or train a new model with them.",
    REPLICATE: "Effects are not estimated again, so write a replicate of the training data.",
}
"""Remedies for unknown values of a field."""


def check_conditions_known(
    adata: AnnData, registry: Mapping[str, Any], *, new_replicates: bool = False
) -> None:
    """Raise a ValueError for conditions, doses or contexts that a model was not trained on.

    Also for replicates, unless ``new_replicates``.
    """
    states = registry["field_registries"]
    for key, argument in CONDITION_FIELDS.items():
        column = registry["setup_args"].get(argument)
        if column is None or (new_replicates and key == REPLICATE):
            continue
        known = list(states[key]["state_registry"]["categorical_mapping"])
        values = check_obs.obs_column(adata, column)
        if unknown := values[~values.isin(known)].unique().tolist():
            raise ValueError(
                f"adata.obs[{column!r}] has values that the model was not trained on: "
                f"{name_some(unknown)}. {REMEDIES[key]}"
            )
