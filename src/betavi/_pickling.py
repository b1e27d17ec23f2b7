"""Pickling of MuData, and of scvi-tools' fields of a MuData, which pickle cannot store.

Models hold both. A model that is sent to another process, or stored by joblib, is pickled.
"""

from __future__ import annotations

import copyreg
from typing import TYPE_CHECKING, Any

from mudata import MuData
from scvi.data import fields

from betavi._mudata import assembled, copied

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

FIELDS = (
    fields.MuDataLayerField,
    fields.MuDataCategoricalObsField,
    fields.MuDataCategoricalJointObsField,
    fields.MuDataNumericalObsField,
    fields.MuDataNumericalJointObsField,
    fields.MuDataObsmField,
)
"""Classes that scvi-tools makes in a function, so that pickle does not find them."""

MAPPINGS = ("uns", "obsm", "obsp")


def _reduced(mdata: MuData) -> tuple[Any, ...]:
    stored = {name: dict(getattr(mdata, name)) for name in MAPPINGS}
    # masks of the cells of each modality, which MuData adds itself
    stored["obsm"] = {k: v for k, v in stored["obsm"].items() if k not in mdata.mod}
    return _restored, (dict(mdata.mod), mdata.obs, stored)


def _restored(
    parts: dict[str, AnnData], obs: pd.DataFrame, stored: dict[str, dict[str, Any]]
) -> MuData:
    # the order of the cells as in the pickled object
    mdata = copied(assembled(parts)[obs.index])
    mdata.obs = obs
    for name, values in stored.items():
        getattr(mdata, name).update(values)
    return mdata


def _reduced_field(field: Any) -> tuple[Any, ...]:
    return _restored_field, (type(field).__name__, field.adata_field, field.mod_key)


def _restored_field(name: str, adata_field: Any, mod_key: str | None) -> Any:
    cls = getattr(fields, name)
    field = cls.__new__(cls)
    fields.BaseMuDataWrapperClass.__init__(field, mod_key=mod_key)
    field._adata_field = adata_field
    return field


def allow_pickling() -> None:
    """Register how a MuData and the fields of a MuData are pickled and copied."""
    copyreg.pickle(MuData, _reduced)
    for cls in FIELDS:
        copyreg.pickle(cls, _reduced_field)
