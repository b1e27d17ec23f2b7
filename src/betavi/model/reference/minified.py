"""What models of minified objects have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anndata import AnnData
from mudata import MuData
from scvi.data._constants import _SCVI_UUID_KEY, _SETUP_METHOD_NAME
from scvi.data._utils import _get_adata_minify_type
from scvi.model.base import BaseMinifiedModeModelClass

from betavi.model.core.beta import MINIFIED_BETA, AtBetaMixin
from betavi.model.setup.anndata import is_registered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData


def refuse_minified(model: AtBetaMixin) -> None:
    """Refuse a model whose object has no counts any more.

    Raises
    ------
    ValueError
        If it has none.
    """
    if getattr(model, "minified_data_type", None) is not None:
        raise ValueError(
            "The object is minified: its counts are gone, and this depends on them. Ask before "
            "minifying, or load the model with the object as it was: "
            "load(..., adata=...)."
        )


class MinifiedMixin(AtBetaMixin, BaseMinifiedModeModelClass):
    """Reads objects of its own kind only: all with counts, or all with posteriors."""

    def _validate_anndata(
        self, adata: AnnOrMuData | None = None, copy_if_view: bool = True
    ) -> AnnOrMuData:
        if isinstance(adata, AnnData | MuData) and not is_registered(self, adata):
            self._refuse_other_kind(adata)
        return super()._validate_anndata(adata, copy_if_view)

    def _refuse_other_kind(self, adata: AnnOrMuData) -> None:
        """Refuse zeros for a model that reads counts, and counts for one that reads posteriors."""
        mine, other = self.minified_data_type, _get_adata_minify_type(adata)
        if mine == other:
            if mine is not None and _beta_of(adata) != _beta_of(self.adata):
                raise ValueError(
                    f"This object was minified at beta={_beta_of(adata):g}, and the model's own at "
                    f"beta={_beta_of(self.adata):g}."
                )
            return
        called = "holds counts" if other is None else f"is minified ({other})"
        own = "holds counts" if mine is None else f"is minified ({mine})"
        raise ValueError(
            f"This object {called}, and the model's own {own}. Load the model with the object: "
            f"{type(self).__name__}.load(folder, adata=...)."
        )

    def _take_minified(self, minified: AnnOrMuData, fields: Sequence[Any]) -> None:
        """Let the model read a minified object from now on, with further fields."""
        minified.uns.pop(_SCVI_UUID_KEY, None)
        manager = self.adata_manager.transfer_fields(minified)
        self._register_manager_for_instance(manager)
        manager.register_new_fields(fields)
        # which scvi-tools does not hand on, and reads when a model is loaded
        manager.registry[_SETUP_METHOD_NAME] = self.registry_[_SETUP_METHOD_NAME]
        self.adata = minified
        self.module.minified_data_type = self.minified_data_type


def _beta_of(adata: AnnOrMuData) -> float:
    """Return the β that a minified object's posteriors are of, 1 if it does not say."""
    return float(adata.uns.get("betavi", {}).get(MINIFIED_BETA, 1.0))
