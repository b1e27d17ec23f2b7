"""A model as its files hold it: settings, names of features, and tensors."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from scvi.data._constants import (
    _FIELD_REGISTRIES_KEY,
    _MODEL_NAME_KEY,
    _SETUP_ARGS_KEY,
    _SETUP_METHOD_NAME,
)

from betavi.data import COUNTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from betavi.model.core.latent_model import LatentModel

PACKAGES = ("betavi", "scvi-tools", "anndata", "mudata", "torch", "numpy", "pandas")
"""Packages whose versions are recorded."""

CLASSES = ("BetaVI", "JointVI", "EffectVI")
"""Names of the classes of models that are loaded and converted."""

SETUPS = ("setup_anndata", "setup_mudata", "setup_datamodule")
"""Names of methods that a file may name for setting up an object."""

DATA_NAMES = {"setup_mudata": "mdata.h5mu"}
"""Names of files with the model's object, by the name of its setup. Otherwise ``adata.h5ad``."""

OF_DATAMODULE = (
    "n_batch", "n_extra_categorical_covs", "n_extra_continuous_covs", "n_labels", "n_sample",
    "n_vars", "batch_labels", "label_keys",
)  # fmt: skip
"""Attributes that scvi-tools adds to a model without an object, to build it again."""


def versions() -> dict[str, str]:
    """Return the versions of the packages that made a model."""
    return {name: version(name) for name in PACKAGES}


@dataclass(repr=False)
class Saved:
    """A model as its files hold it.

    scvi-tools reads a reference model through ``_get_user_attributes``, ``get_var_names`` and
    ``module.state_dict()``. A ``Saved`` has all three, so that a folder needs no unpickling.

    Parameters
    ----------
    attributes
        Attributes of the model whose names end in ``_``, such as ``registry_``.
    var_names
        Names of the features. For a MuData, by modality.
    tensors
        Weights and buffers, by name.
    data
        Name of the file with the model's object, without the prefix. None if it was not saved.
    versions
        Versions of the packages that made the model.
    """

    attributes: dict[str, Any]
    var_names: Any
    tensors: dict[str, Tensor]
    data: str | None = None
    versions: dict[str, str] = field(default_factory=versions)

    def __post_init__(self) -> None:
        """Raise a ValueError if the attributes are not those of a model."""
        for name in ("init_params_", "registry_"):
            if not isinstance(self.attributes.get(name), dict):
                raise ValueError(f"the attribute {name!r} is missing")
        _check_registry(self.attributes["registry_"])
        unknown = [
            name for name in self.attributes if not name.endswith("_") and name not in OF_DATAMODULE
        ]
        if unknown or any(name.startswith("_") for name in self.attributes):
            raise ValueError(f"unknown attributes {unknown or list(self.attributes)}")
        if self.setup_name not in SETUPS:
            raise ValueError(f"the setup method {self.setup_name!r} is unknown")
        if self.data not in (None, self.data_name):
            raise ValueError(f"the name of the data must be {self.data_name!r}, not {self.data!r}")

    @property
    def class_name(self) -> str | None:
        """Name of the model's class. None for a model of a datamodule without a registry."""
        return self.attributes["registry_"].get(_MODEL_NAME_KEY)

    @property
    def setup_name(self) -> str:
        """Name of the method that sets up an object."""
        return self.attributes["registry_"].get(_SETUP_METHOD_NAME, "setup_anndata")

    @property
    def data_name(self) -> str:
        """Name that a file with the model's object has."""
        return DATA_NAMES.get(self.setup_name, "adata.h5ad")

    @property
    def module(self) -> SimpleNamespace:
        """Stand-in for a module, with the tensors as its state."""
        return SimpleNamespace(state_dict=lambda: dict(self.tensors))

    def _get_user_attributes(self) -> list[tuple[str, Any]]:
        # scvi-tools removes entries
        return list(deepcopy(self.attributes).items())

    def get_var_names(self) -> Any:
        """Return the names of the features. For a MuData, by modality."""
        return deepcopy(self.var_names)


def _check_registry(registry: dict[str, Any]) -> None:
    """Raise a ValueError if a registry lacks its parts. That of some datamodules is empty."""
    fields, arguments = registry.get(_FIELD_REGISTRIES_KEY), registry.get(_SETUP_ARGS_KEY, {})
    if not registry:
        return
    if not isinstance(fields, dict) or not all(isinstance(x, dict) for x in fields.values()):
        raise ValueError(f"the registry has no {_FIELD_REGISTRIES_KEY!r}")
    if not fields or not isinstance(arguments, dict):
        raise ValueError(
            f"{_FIELD_REGISTRIES_KEY!r} or {_SETUP_ARGS_KEY!r} is empty or no dictionary"
        )


def saved_from(model: LatentModel, legacy_mudata_format: bool, datamodule: Any) -> Saved:
    """Return what the files of a model hold."""
    if model.module is None:
        raise ValueError(
            "The model has no networks yet, so there is nothing to save. Call "
            "model.train(datamodule=...) first."
        )
    attributes = {name: value for name, value in model._get_user_attributes() if name[-1] == "_"}
    if model.registry_.get(_SETUP_METHOD_NAME) == "setup_datamodule":
        attributes |= _sizes_of(datamodule)
    tensors = separate(model.module.state_dict())
    return Saved(attributes, _var_names(model, legacy_mudata_format), tensors)


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of tensors in main memory that share no memory, as files need them."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 digest of tensors, with their names, types and shapes."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    """Return the memory of a tensor. NumPy lacks some types of PyTorch."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _var_names(model: LatentModel, legacy_mudata_format: bool) -> Any:
    if model.adata is not None:
        return model.get_var_names(legacy_mudata_format=legacy_mudata_format)
    names = {name: model.features(name).to_numpy() for name in model.modalities}
    return names[COUNTS] if list(names) == [COUNTS] else names


def _sizes_of(datamodule: Any) -> dict[str, Any]:
    """Return the sizes that scvi-tools records for a model of a datamodule."""
    if datamodule is None:
        raise ValueError(
            "The model was made from the registry of a datamodule. Pass the datamodule: "
            "save(folder, datamodule=...)"
        )
    fields = datamodule.registry["field_registries"]
    return {
        "n_batch": datamodule.n_batch,
        "n_extra_categorical_covs": fields["extra_categorical_covs"]["summary_stats"][
            "n_extra_categorical_covs"
        ],
        "n_extra_continuous_covs": fields["extra_continuous_covs"]["summary_stats"][
            "n_extra_continuous_covs"
        ],
        "n_labels": datamodule.n_labels,
        "n_sample": datamodule.n_samples,
        "n_vars": datamodule.n_vars,
        "batch_labels": datamodule.batch_labels,
        "label_keys": getattr(datamodule, "label_keys", None),
    }
