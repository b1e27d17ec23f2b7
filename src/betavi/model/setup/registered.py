"""Checks of registered objects, and restoration of an object after a failed call."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from anndata import AnnData
from mudata import MuData
from scvi.data._constants import _SCVI_UUID_KEY
from scvi.data._utils import _get_adata_minify_type

from betavi.model.setup.check_mudata import check_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scvi._types import AnnOrMuData
    from scvi.model.base import BaseModelClass

MINIFIED_BETA = "minified_beta"
"""Key of the posteriors' β in ``uns["betavi"]`` of a minified object."""


def is_registered(model: BaseModelClass, adata: AnnOrMuData) -> bool:
    """Return True if an object is registered with a model."""
    managers = model._per_instance_manager_store.get(model.id, {})
    manager = managers.get(adata.uns.get(_SCVI_UUID_KEY)) if hasattr(adata, "uns") else None
    return manager is not None and manager.adata is adata


def check_registered(model: BaseModelClass, adata: AnnOrMuData | None) -> None:
    """Raise a ValueError if a registered object was changed. None checks the model's own object."""
    read = model.adata if adata is None else adata
    if isinstance(read, MuData):
        for name in model.registry_["setup_args"]["likelihoods"]:
            check_rows(read, name)
    for manager in model._per_instance_manager_store.get(model.id, {}).values():
        if read is not None and manager.adata is read:
            manager.check_unchanged()


def refuse_other_kind(model: BaseModelClass, adata: AnnOrMuData) -> None:
    """Raise a ValueError if an object and the model's own object are minified differently."""
    own, other = model.minified_data_type, _get_adata_minify_type(adata)
    if own == other:
        if own is not None and _beta_of(adata) != _beta_of(model.adata):
            raise ValueError(
                f"`adata` was minified at beta={_beta_of(adata):g}, but the model's own object was "
                f"minified at beta={_beta_of(model.adata):g}. Minify both objects at the same β."
            )
        return
    kinds = ["holds counts" if kind is None else f"is minified ({kind})" for kind in (other, own)]
    raise ValueError(
        f"`adata` {kinds[0]}, but the model's own object {kinds[1]}. Load the model with `adata`: "
        f"{type(model).__name__}.load(folder, adata=...)"
    )


def _beta_of(adata: AnnOrMuData) -> float:
    """Return the β of a minified object's posteriors. If β is not recorded, 1."""
    return float(adata.uns.get("betavi", {}).get(MINIFIED_BETA, 1.0))


def _view_again(adata: AnnOrMuData) -> Callable[[], None]:
    """Return a function that turns an object into the view again that it is now, if it is one."""
    if not adata.is_view:
        return lambda: None
    cells, features = adata._oidx, adata._vidx
    if isinstance(adata, MuData):
        return partial(adata._init_as_view, adata._mudata_ref, (cells, features))
    return partial(adata._init_as_view, adata._adata_ref, cells, features)


@contextmanager
def untouched_on_failure(adata: AnnOrMuData | None) -> Iterator[None]:
    """Restore ``obs``, ``obsm`` and ``uns`` of an object if the body fails.

    This undoes registration, in which scvi-tools writes the codes of one field after another.
    """
    # the body refuses other objects
    if not isinstance(adata, AnnData | MuData):
        yield
        return
    view_again = _view_again(adata)
    obs = adata.obs.copy(deep=False)
    obsm, uns = dict(adata.obsm), dict(adata.uns)
    try:
        yield
    except BaseException:
        # scvi-tools first makes a view an object of its own
        if adata.is_view:
            raise
        adata.obs = obs
        for mapping, before in ((adata.obsm, obsm), (adata.uns, uns)):
            for key in set(mapping) - set(before):
                del mapping[key]
            mapping.update(before)
        view_again()
        raise
