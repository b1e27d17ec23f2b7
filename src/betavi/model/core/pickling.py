"""Pickling and copying of models."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from betavi.model.core.latent_model import LatentModel

NOT_PICKLED = ("trainer", "_cache")
"""Attributes that a pickled or copied model lacks. The trainer holds the user's callbacks."""


def state_of(model: LatentModel) -> dict[str, Any]:
    """Return the attributes of a model that can be pickled, with its object stored once."""
    _check_can_be_pickled(model)
    state = {name: value for name, value in model.__dict__.items() if name not in NOT_PICKLED}
    if model.adata_manager is not None:
        state["_adata_manager"] = manager = copy(model.adata_manager)
        manager.adata = None
    return state


def restore(model: LatentModel, state: dict[str, Any]) -> None:
    """Restore the attributes, and register the object with the new model."""
    model.__dict__.update(state)
    # scvi-tools stores managers by this name, which two models must not share
    model.id = str(uuid4())
    if (manager := model._adata_manager) is not None:
        manager.adata = model._adata
        model._register_manager_for_instance(manager)


def _check_can_be_pickled(model: LatentModel) -> None:
    """Raise a TypeError for a model of a query, or of an object that is backed by a file."""
    # a model that waits for a datamodule has no module
    parts = [] if model.module is None else model.module.modules()
    if any(getattr(part, "hooks", None) for part in parts):
        raise TypeError(
            "A model of a query cannot be pickled or copied, because hooks keep the weights of the "
            "reference unchanged. Use model.save(folder), and load the model with load()."
        )
    if getattr(model.adata, "isbacked", False):
        raise TypeError(
            "The model cannot be pickled or copied, because its object is backed by a file. Use "
            "model.save(folder), or read the object into memory: adata.to_memory()"
        )
