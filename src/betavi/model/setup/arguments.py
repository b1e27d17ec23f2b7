"""Checks before a call: arguments that several methods share, precision, and the process."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import torch
from anndata import AnnData
from mudata import MuData

from betavi._tables import check_whole
from betavi.model.setup.messages import warn

if TYPE_CHECKING:
    from collections.abc import Callable
    from inspect import Parameter

_PREPARED = [os.getpid()]
"""Process that imported betavi, or the forked process that was checked last."""

LARGEST_SEED = 2**32 - 1
"""Largest seed of NumPy's older generator, which scikit-learn uses."""

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


def _check_positive(name: str, value: Any) -> None:
    _check_real(name, value)
    if not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be a finite number above 0, not {value!r}.")


def _check_names(name: str, value: Any) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, Iterable) or any(not isinstance(part, str) for part in value):
        raise TypeError(f"`{name}` must be a name or a list of names, not {value!r}.")


def _check_list(name: str, value: Any) -> None:
    if isinstance(value, str):
        raise TypeError(f"`{name}` must be a list of names: [{value!r}]")
    _check_names(name, value)


def _check_loader(name: str, value: Any) -> None:
    # a loader has no positions
    is_list = hasattr(value, "__getitem__") or isinstance(value, set)
    has_minibatches = not is_list or (len(value) and isinstance(next(iter(value)), Mapping))
    is_other = isinstance(value, str | Mapping | AnnData | MuData)
    if is_other or not isinstance(value, Iterable) or not has_minibatches:
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
    "seed": _check_seed,
    "beta": _check_real,
    "level": _check_real,
    "warmup": _check_real,
    "free_bits": _check_real,
    "target_rate": _check_real,
    "capacity": _check_real,
    "fraction": _check_real,
    "rna_size_factor": _check_positive,
    "drop_below": _check_real,
    "modality": _check_name,
    "groupby": _check_name,
    "modalities": _check_names,
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

NUMBERS = (_check_number, _check_seed, _check_real, _check_positive)
"""Checks of numbers."""


def check_arguments(
    arguments: Mapping[str, Any], parameters: Mapping[str, Parameter] | None = None
) -> None:
    """Check the arguments of a call that are in :data:`CHECKS`. ``kwargs`` may hold more.

    None is allowed, but not as a number that has another default in ``parameters``.
    """
    given, parameters = {**arguments.get("kwargs", {}), **arguments}, parameters or {}
    for name, check in CHECKS.items():
        value = given.get(name)
        has_default = name in parameters and parameters[name].default is not None
        if value is not None or (name in given and has_default and check in NUMBERS):
            check(name, value)


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
