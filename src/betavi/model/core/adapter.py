"""Adapters between the user's data and the package: an AnnData, or a MuData with several modalities.

Inside the package, every value is stored by modality. An adapter reads one modality of the user's
object, and returns results as scvi-tools' users expect them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from betavi._mudata import assembled, make_actual
from betavi.data import COUNTS, counts_layer
from betavi.model.setup.anndata import check_fits, check_object
from betavi.model.setup.check_counts import check_is_anndata
from betavi.model.setup.check_depth import warn_deep_cells
from betavi.model.setup.check_mudata import check_is_mudata, check_modalities
from betavi.model.setup.check_obs import check_values
from betavi.model.setup.mudata import check_fit, check_has_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from betavi.model.core.latent_model import LatentModel

T = TypeVar("T")


class Adapter(ABC):
    """Access to the user's object, and conversion of results."""

    @abstractmethod
    def modalities(self, registry: Mapping[str, Any]) -> list[str]:
        """Return the names of the registered modalities."""

    @abstractmethod
    def part(self, data: Any, name: str) -> AnnData:
        """Return the AnnData of one modality."""

    @abstractmethod
    def layer(self, setup_args: Mapping[str, Any], name: str) -> str | None:
        """Return the registered layer of a modality; None for ``X``."""

    @abstractmethod
    def image_key(self, setup_args: Mapping[str, Any], name: str) -> str | None:
        """Return the key in ``obsm`` of a modality's images; None for counts."""

    @abstractmethod
    def has(self, data: Any, name: str) -> np.ndarray:
        """Return a mask of the cells that have a modality, ``(n_cells,)``."""

    @abstractmethod
    def bare(self, by_modality: Mapping[str, T]) -> Any:
        """Return the only value for an AnnData, or a dictionary by modality for a MuData."""

    @abstractmethod
    def by_modality(self, value: Any) -> dict[str, Any]:
        """Return a user's value as a dictionary by modality; None becomes an empty dictionary."""

    @abstractmethod
    def together(self, parts: Mapping[str, AnnData], obs: pd.DataFrame | None = None) -> Any:
        """Return one object with all modalities.

        If ``obs`` is given, it becomes the cell annotation.
        """

    @abstractmethod
    def register(self, model: type[LatentModel], data: Any, setup_args: dict[str, Any]) -> None:
        """Set up an object with counts in ``X``, with the setup arguments of another object."""

    check_kind: Callable[[Any], object]
    """Raise a TypeError if an object is of the other kind."""

    @abstractmethod
    def check_new(self, model: LatentModel, data: Any) -> None:
        """Check an object that is new to the model, or raise an error."""

    def counts_layer(self, data: Any, setup_args: Mapping[str, Any], name: str) -> str | None:
        """Return the layer that now holds the counts of a modality; None for ``X``."""
        return counts_layer(self.part(data, name), self.layer(setup_args, name))


class AnnDataAdapter(Adapter):
    """Adapter of an AnnData: one modality, called ``"X"``, and plain results."""

    def modalities(self, registry: Mapping[str, Any]) -> list[str]:
        return [COUNTS]

    def part(self, data: AnnData, name: str) -> AnnData:
        return data

    def layer(self, setup_args: Mapping[str, Any], name: str) -> str | None:
        return setup_args["layer"]

    def image_key(self, setup_args: Mapping[str, Any], name: str) -> str | None:
        return setup_args.get("image_key")

    def has(self, data: AnnData, name: str) -> np.ndarray:
        return np.ones(data.n_obs, dtype=bool)

    def bare(self, by_modality: Mapping[str, T]) -> T:
        (value,) = by_modality.values()
        return value

    def by_modality(self, value: Any) -> dict[str, Any]:
        return {} if value is None else {COUNTS: value}

    def together(self, parts: Mapping[str, AnnData], obs: pd.DataFrame | None = None) -> AnnData:
        (part,) = parts.values()
        if obs is not None:
            part.obs = obs.copy()
        return part

    def register(self, model: type[LatentModel], data: AnnData, setup_args: dict[str, Any]) -> None:
        # the first setup already accepted cells without counts
        model.setup_anndata(data, **setup_args | {"layer": None, "keep_empty_cells": True})

    check_kind = staticmethod(check_is_anndata)

    def check_new(self, model: LatentModel, data: AnnData) -> None:
        # a model of a datamodule has no setup arguments; scvi-tools reports this itself
        if "setup_args" in model.registry_:
            totals = check_object(data, model.registry_["setup_args"])
            if totals is not None:
                warn_deep_cells(totals, data.obs_names, "adata", model.largest_totals[COUNTS])
            check_fits(data, model.registry_)


class MuDataAdapter(Adapter):
    """Adapter of a MuData: one AnnData for each modality, and results as dictionaries."""

    def modalities(self, registry: Mapping[str, Any]) -> list[str]:
        return list(registry["setup_args"]["likelihoods"])

    def part(self, data: MuData, name: str) -> AnnData:
        return data[name]

    def layer(self, setup_args: Mapping[str, Any], name: str) -> str | None:
        return (setup_args["layers"] or {}).get(name)

    def image_key(self, setup_args: Mapping[str, Any], name: str) -> str | None:
        return (setup_args.get("image_keys") or {}).get(name)

    def has(self, data: MuData, name: str) -> np.ndarray:
        return np.asarray(data.obsmap[name]) > 0

    def bare(self, by_modality: Mapping[str, T]) -> dict[str, T]:
        return dict(by_modality)

    def by_modality(self, value: Mapping[str, Any] | None) -> dict[str, Any]:
        return dict(value or {})

    def together(self, parts: Mapping[str, AnnData], obs: pd.DataFrame | None = None) -> MuData:
        found = assembled(parts)
        if obs is not None:
            found.obs = obs.loc[found.obs_names].copy()
        return found

    def register(self, model: type[LatentModel], data: MuData, setup_args: dict[str, Any]) -> None:
        # the first setup already accepted features that a batch lacks
        model.setup_mudata(data, **setup_args | {"layers": None, "keep_absent_features": True})

    check_kind = staticmethod(check_is_mudata)

    def check_new(self, model: LatentModel, data: MuData) -> None:
        check_is_mudata(data)
        make_actual(data)
        args = model.registry_["setup_args"]
        check_has_all(data, args["likelihoods"])
        check_modalities(
            data,
            args["likelihoods"],
            args["layers"] or {},
            may_lack_any=True,
            largest_totals=model.largest_totals,
            image_keys=args.get("image_keys"),
        )
        check_fit(data, model.registry_)
        check_values(data, args["continuous_covariate_keys"] or [], positive=False)
