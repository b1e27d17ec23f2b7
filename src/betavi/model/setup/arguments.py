"""Checks before a call: arguments that several methods share, precision, and the process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData
from lightning.pytorch.callbacks import Callback
from mudata import MuData
from scvi.model.base import BaseModelClass

from betavi._tables import check_flag, check_mapping, check_size, check_whole
from betavi.model.setup.messages import warn

if TYPE_CHECKING:
    from collections.abc import Callable
    from inspect import Parameter

_PREPARED = [os.getpid()]
"""Process that imported betavi, or the forked process that was checked last."""

LARGEST_SEED = 2**32 - 1
"""Largest seed of NumPy's older generator, which scikit-learn uses."""

LARGEST_FACTOR = 1e20
"""Largest factor between library sizes. Rates times it stay inside single precision."""

LARGEST_NUMBER = 10**7
"""Largest number of samples or of cells of a minibatch. More would take days."""


def _check_number(name: str, value: Any) -> None:
    check_whole(f"`{name}`", value)
    if value > LARGEST_NUMBER:
        raise ValueError(f"`{name}` must be at most {LARGEST_NUMBER:,}, not {value!r}.")


def _check_seed(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or not 0 <= int(value) <= LARGEST_SEED:
        raise ValueError(
            f"`{name}` must be a whole number from 0 to {LARGEST_SEED}, not {value!r}."
        )


def _check_name(name: str, value: Any) -> None:
    """Raise a TypeError unless a value is a string."""
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be a name, not {type(value).__name__} {value!r}.")


def _check_path(name: str, value: Any) -> None:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(
            f"`{name}` must be the path of a file, not {type(value).__name__} {value!r}."
        )


def _check_real(name: str, value: Any) -> None:
    if not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a number, not {type(value).__name__} {value!r}.")


def _check_factor(name: str, value: Any) -> None:
    _check_real(name, value)
    if not 1 / LARGEST_FACTOR <= value <= LARGEST_FACTOR:
        raise ValueError(
            f"`{name}` must be a number from {1 / LARGEST_FACTOR:g} to {LARGEST_FACTOR:g}, not "
            f"{value!r}."
        )


def _check_not_negative(name: str, value: Any) -> None:
    _check_real(name, value)
    if not value >= 0:
        raise ValueError(f"`{name}` must be a number of at least 0, not {value!r}.")


def _check_names(name: str, value: Any) -> None:
    if isinstance(value, str):
        return
    # an iterator could be read only once
    is_list = isinstance(value, Iterable) and not isinstance(value, Iterator)
    if not is_list or any(not isinstance(part, str) for part in value):
        raise TypeError(f"`{name}` must be a name or a list of names, not {value!r}.")


def _check_list(name: str, value: Any) -> None:
    if isinstance(value, str):
        raise TypeError(f"`{name}` must be a list of names: [{value!r}]")
    _check_names(name, value)


def _check_share(name: str, value: Any) -> None:
    _check_real(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be a share, from 0 to 1, not {value!r}.")


def _check_schedule(name: str, value: Any) -> None:
    if isinstance(value, type) or not (isinstance(value, str) or callable(value)):
        raise TypeError(f"`{name}` must be the name of a schedule or a function, not {value!r}.")


def _check_guard(name: str, value: Any) -> None:
    if not isinstance(value, str):
        check_flag(name, value)


def _check_callbacks(name: str, value: Any) -> None:
    given = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(callback, Callback) for callback in given):
        raise TypeError(
            f"`{name}` must be callbacks of Lightning, such as betavi.train.CollapseGuard(), not "
            f"{value!r}."
        )


def _check_datamodule(name: str, value: Any) -> None:
    if not hasattr(value, "train_dataloader"):
        raise TypeError(f"`{name}` must be a LightningDataModule, not {value!r}.")


def _check_model(name: str, value: Any) -> None:
    if not isinstance(value, str | os.PathLike | BaseModelClass):
        raise TypeError(f"`{name}` must be a model, or the folder of a saved model, not {value!r}.")


def _check_groups(name: str, value: Any) -> None:
    groups = np.asarray(value, dtype=object)
    if groups.ndim > 1 or not groups.size:
        raise ValueError(f"`{name}` must be a group or a list of groups, not {value!r}.")


def _check_group(name: str, value: Any) -> None:
    if np.ndim(np.asarray(value, dtype=object)):
        raise ValueError(f"`{name}` must be one group, not {value!r}.")


def _check_loader(name: str, value: Any) -> None:
    is_other = isinstance(value, str | Mapping | AnnData | MuData | np.generic)
    is_other = is_other or not isinstance(value, Iterable)
    # a loader has no positions
    is_list = hasattr(value, "__getitem__") or isinstance(value, set)
    if is_other or (is_list and not isinstance(next(iter(value), None), Mapping)):
        raise TypeError(
            f"`{name}` must yield minibatches, which are dictionaries of tensors, not "
            f"{type(value).__name__} {value!r}."
        )


CHECKS: dict[str, Callable[[str, Any], None]] = {
    "batch_size": _check_number,
    "n_samples": _check_number,
    "n_samples_overall": _check_number,
    "n_mc_samples": _check_number,
    "n_mc_samples_per_pass": _check_number,
    "mc_samples": _check_number,
    "n_cells": _check_number,
    "n_genes": _check_number,
    "n_steps": _check_number,
    "seed": _check_seed,
    "train_size": _check_share,
    "validation_size": _check_share,
    "beta_schedule": _check_schedule,
    "collapse_guard": _check_guard,
    "plan_kwargs": check_mapping,
    "datasplitter_kwargs": check_mapping,
    "callbacks": _check_callbacks,
    "datamodule": _check_datamodule,
    "reference_model": _check_model,
    "beta": _check_real,
    "level": _check_real,
    "warmup": _check_real,
    "one_cycle": _check_real,
    "from_moments": check_flag,
    "lr": _check_not_negative,
    "eps": _check_not_negative,
    "weight_decay": _check_not_negative,
    "n_epochs_kl_warmup": _check_real,
    "n_steps_kl_warmup": _check_real,
    "max_kl_weight": _check_real,
    "min_kl_weight": _check_real,
    "free_bits": _check_real,
    "target_rate": _check_real,
    "capacity": _check_real,
    "fraction": _check_real,
    "rna_size_factor": _check_factor,
    "drop_below": _check_real,
    "group1": _check_groups,
    "group2": _check_group,
    "mode": _check_name,
    "modality": _check_name,
    "groupby": _check_name,
    "delta": _check_real,
    "fdr": _check_share,
    "fdr_target": _check_share,
    "unknown": _check_share,
    "modalities": _check_names,
    "perturbation": _check_names,
    "source": _check_names,
    "target": _check_names,
    "gene_list": _check_list,
    "region_list": _check_list,
    "protein_list": _check_list,
    "dataloader": _check_loader,
    "layer": _check_name,
    "layer_added": _check_name,
    "std_layer_added": _check_name,
    "out": _check_path,
}
"""Check of an argument that is not None, by name. A check raises a ValueError or a TypeError."""


FLAGS = ("bool", "bool | None", str(bool), "Optional[bool]")
"""Annotations of arguments that are True or False."""


def check_arguments(
    arguments: Mapping[str, Any], parameters: Mapping[str, Parameter] | None = None
) -> None:
    """Check the arguments of a call that are in :data:`CHECKS`. ``kwargs`` may hold more.

    A finite number must fit into single precision. None is allowed, except for arguments whose default and type in ``parameters`` exclude it. An
    argument that is annotated as True or False, or has such a default, must be one of them.
    """
    given, parameters = {**arguments.get("kwargs", {}), **arguments}, parameters or {}
    for name, value in given.items():
        check_size(name, value)
    for name, parameter in parameters.items():
        is_flag = str(parameter.annotation) in FLAGS or isinstance(parameter.default, bool)
        is_left = given.get(name) is None and _may_be_none(parameter)
        if is_flag and name in given and name not in CHECKS and not is_left:
            check_flag(name, given[name])
    for name, check in CHECKS.items():
        if name in given and not (given[name] is None and _may_be_none(parameters.get(name))):
            check(name, given[name])


def _may_be_none(parameter: Parameter | None) -> bool:
    if parameter is None or parameter.default is None:
        return True
    return "None" in str(parameter.annotation)


def check_surroundings() -> None:
    """Raise a RuntimeError where PyTorch would compute in another precision than the model.

    In a forked process, PyTorch gets one thread, with a warning. A forked process has none of the
    threads of its parent. The OpenMP runtime would wait endlessly for them.
    """
    if torch.get_default_dtype() != torch.float32:
        raise RuntimeError(
            f"PyTorch's default type is {torch.get_default_dtype()}, but models compute in single "
            "precision. Run first: torch.set_default_dtype(torch.float32)"
        )
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise RuntimeError(
            "The call is inside torch.autocast, but models compute in single precision. Call the "
            "method outside the `with` block. To train in mixed precision, use "
            "train(precision='bf16-mixed')"
        )
    if os.getpid() != _PREPARED[0]:
        _PREPARED[0] = os.getpid()
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
            warn(
                "This process was forked, so PyTorch's threads do not exist in it. It uses one "
                "thread. To use more threads, start the process with "
                "multiprocessing.get_context('spawn')."
            )
