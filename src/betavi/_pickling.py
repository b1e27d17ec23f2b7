"""Pickling of scvi-tools' fields of a MuData, and the parts of a MuData that pickle can store.

Models hold both. A model that is sent to another process, or stored by joblib, is pickled.
"""

from __future__ import annotations

import copyreg
from typing import Any

from mudata import MuData
from scvi.data import fields

from betavi._mudata import assembled, copied

FIELDS = (
    fields.MuDataLayerField,
    fields.MuDataCategoricalObsField,
    fields.MuDataCategoricalJointObsField,
    fields.MuDataNumericalObsField,
    fields.MuDataNumericalJointObsField,
    fields.MuDataObsmField,
)
"""Classes that scvi-tools makes in a function, so that pickle does not find them."""

TABLES, MAPPINGS = ("obs", "var"), ("uns", "obsm", "varm", "obsp", "varp")


class MuDataParts:
    """Parts of a MuData that pickle can store."""

    def __init__(self, mdata: MuData) -> None:
        # a modality from a file refers to the file
        self.modalities = {name: part.copy() for name, part in mdata.mod.items()}
        self.tables = {name: getattr(mdata, name) for name in TABLES}
        # MuData adds the masks of the modalities itself
        self.mappings = {
            name: {k: v for k, v in dict(getattr(mdata, name)).items() if k not in mdata.mod}
            for name in MAPPINGS
        }

    def joined(self) -> MuData:
        """Return the MuData."""
        mdata = assembled(self.modalities)
        names = self.tables["obs"].index
        # the order of the cells as in the stored object
        mdata = mdata if mdata.obs_names.equals(names) else copied(mdata[names])
        for name, table in self.tables.items():
            setattr(mdata, name, table)
        for name, values in self.mappings.items():
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


def _reduced_mudata(mdata: MuData) -> tuple[Any, ...]:
    return MuDataParts.joined, (MuDataParts(mdata),)


def allow_pickling() -> None:
    """Register how a MuData and its fields are pickled. A MuData alone cannot be pickled."""
    for cls in FIELDS:
        copyreg.pickle(cls, _reduced_field)
    copyreg.pickle(MuData, _reduced_mudata)
