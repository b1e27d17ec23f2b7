"""Base class of the models: the primitives that all methods use."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data._utils import _validate_adata_dataloader_input
from scvi.model.base import (
    ArchesMixin,
    BaseMinifiedModeModelClass,
    EmbeddingMixin,
    UnsupervisedTrainingMixin,
    VAEMixin,
)
from scvi.utils import track
from torch.distributions import Normal

from betavi._tables import close_matches
from betavi.data import DataSplitter, format_in, present_key
from betavi.data.conditions import CONDITION_FIELDS
from betavi.model.core import pickling
from betavi.model.core.covariates import covariates_of
from betavi.model.setup.registered import (
    MINIFIED_BETA,
    check_registered,
    is_registered,
    refuse_other_kind,
    untouched_on_failure,
)
from betavi.module import CovariateSizes
from betavi.nn import ROUNDING
from betavi.train import TrainingPlan, TrainRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from scvi._types import AnnOrMuData
    from torch import Tensor
    from torch.distributions import Distribution

    from betavi.data import AlignedRows, CellManager, ImageFormat, Rows
    from betavi.likelihoods import Likelihood
    from betavi.model.core.adapter import Adapter
    from betavi.model.core.covariates import Covariates
    from betavi.module import MultimodalVAE
    from betavi.nn.depth import DepthLimit

Tensors = dict[str, Any]

ENOUGH_HELD_OUT = 100
"""Smallest number of held-out cells that a model is judged on. Not tuned."""

UNTRAINED = (
    "The model is not trained. Call model.train() first. A query model also needs training, to learn "
    "its new categories."
)


class LatentModel(
    EmbeddingMixin, VAEMixin, ArchesMixin, UnsupervisedTrainingMixin, BaseMinifiedModeModelClass
):
    """Base class of a model with one modality or several.

    The class body of a model lists its methods: functions whose first argument is the model. They
    use only the primitives below.
    """

    module: MultimodalVAE
    adapter: ClassVar[Adapter]
    """Access to the user's AnnData or MuData, and conversion of results."""

    _data_splitter_cls = DataSplitter
    _train_runner_cls = TrainRunner
    _training_plan_cls = TrainingPlan
    _module_kwargs: dict[str, Any]

    __getstate__ = pickling.state_of
    __setstate__ = pickling.restore

    # -- modalities ---------------------------------------------------------------------------

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities; ``["X"]`` for a model of an AnnData."""
        return self.adapter.modalities(self.registry_)

    def named_modalities(self, names: Sequence[str] | str | None) -> list[str]:
        """Return the requested modalities. None means all modalities."""
        if names is None:
            return self.modalities
        chosen = [names] if isinstance(names, str) else list(names)
        for name in chosen:
            if name not in self.modalities:
                raise ValueError(
                    f"The model has no modality {name!r}. {close_matches(name, self.modalities)}"
                )
        if not chosen:
            raise ValueError(
                "`modalities` is empty. Name at least one modality, or pass None to use all."
            )
        return chosen

    def likelihood(self, name: str) -> Likelihood:
        """Return the likelihood of a modality, p(x given z)."""
        return self.module.likelihood(name)

    def features(self, name: str) -> pd.Index:
        """Return the feature names of a modality."""
        state = self.registry_["field_registries"][name]["state_registry"]
        return pd.Index(state["column_names"])

    def image_format(self, name: str) -> ImageFormat | None:
        """Return the format of a modality's images. None for counts."""
        return format_in(self.registry_, name)

    def as_images(self, name: str, obs: pd.DataFrame, **flat: np.ndarray) -> AnnData:
        """Return flat images of a modality as an object with images in ``obsm``.

        ``flat`` has arrays ``(n_cells, n_pixels)`` by key. The key ``images`` stands for the key of
        the modality's images.
        """
        image = cast("ImageFormat", self.image_format(name))
        own = str(self.adapter.image_key(self.registry_["setup_args"], name))
        images = {
            own if key == "images" else key: values.reshape(-1, *image.shape).astype(np.float32)
            for key, values in flat.items()
        }
        return AnnData(obs=obs, obsm=images)

    def refuse_images(self, ability: str, remedy: str, names: Sequence[str] | None = None) -> None:
        """Raise a ValueError if a modality has images, for which a method is not defined."""
        for name in names or self.modalities:
            if self.image_format(name) is not None:
                raise ValueError(
                    f"{ability} is for counts, but the modality {name!r} has images. {remedy}"
                )

    def manager(self, adata: AnnOrMuData) -> CellManager:
        """Return the registered fields of an object."""
        if adata is self.adata:
            return self.adata_manager
        return self.get_anndata_manager(adata, required=True)

    def rows(self, adata: AnnOrMuData, name: str) -> Rows | AlignedRows:
        """Return the counts of a modality, with one row for each cell of the object."""
        return cast("Rows | AlignedRows", self.manager(adata).rows(name))

    def check_same_fields(self, cells: CellManager) -> None:
        """Raise a ValueError if registered cells have other features, batches or labels."""
        own, other = (each["field_registries"] for each in (self.registry_, cells.registry))
        if not own:
            # the model waits for a datamodule
            return
        categories = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY, *CONDITION_FIELDS)
        for key in (*self.modalities, *(key for key in categories if key in own)):
            states = [fields.get(key, {}).get("state_registry", {}) for fields in (own, other)]
            for name in ("column_names", "categorical_mapping"):
                one, two = (list(state.get(name, [])) for state in states)
                if one != two:
                    raise ValueError(
                        f"The cells of the datamodule and the model differ in {name!r} of {key!r}. Make "
                        "the datamodule for this model: StoreDataModule(..., reference=model)"
                    )

    # -- minibatches, the posterior, decoding ------------------------------------------------

    def minibatches(
        self,
        adata: AnnOrMuData,
        cells: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
        modalities: Sequence[str] | None = None,
        progress: str | None = None,
        **loader_kwargs: Any,
    ) -> Iterator[Tensors]:
        """Yield minibatches of the cells at some positions, in the given order. None: all cells.

        All modalities except ``modalities`` are masked. With None, no modality is masked.
        ``progress`` is the label of a progress bar. None hides the bar.
        """
        loader = self._make_data_loader(adata, cells, batch_size, **loader_kwargs)
        shown = track(iter(loader), progress or "", total=len(loader), disable=progress is None)
        for tensors in shown:
            yield tensors if modalities is None else self.masked(tensors, modalities)

    def user_minibatches(
        self, dataloader: Any, adata: AnnOrMuData | None, *loading: Any, **loader_kwargs: Any
    ) -> Iterable[Tensors]:
        """Return the user's ``dataloader``, or minibatches of ``adata`` without one."""
        _validate_adata_dataloader_input(self, adata, dataloader)
        if dataloader is not None:
            return dataloader
        return self._make_data_loader(self._validate_anndata(adata), *loading, **loader_kwargs)

    def masked(self, tensors: Tensors, modalities: Sequence[str]) -> Tensors:
        """Return a minibatch in which all other modalities are masked."""
        hidden = [present_key(name) for name in self.modalities if name not in modalities]
        return tensors | {key: torch.zeros_like(tensors[key]) for key in hidden}

    def infer(self, tensors: Tensors, n_samples: int = 1) -> dict[str, Any]:
        """Return the posterior of a minibatch, and samples of the posterior.

        Keys: ``qz``, the posterior; ``u``, samples before the transform to the decoder's input, and
        ``z``, samples after the transform, both ``([n_samples,] n_cells, n_latent)``; ``library``,
        log library sizes by modality; ``ql``, posteriors of inferred library sizes.
        """
        inputs = self.module._get_inference_input(tensors)
        inferred = self.module.inference(**inputs, n_samples=n_samples)
        if "qz" not in inferred:
            # modules for older scvi-tools return mean and variance
            inferred["qz"] = Normal(inferred["qzm"], inferred["qzv"].sqrt())
        return inferred

    def decode(
        self, z: Tensor, tensors: Tensors, name: str, log_size: Tensor, batch: int | None = None
    ) -> Distribution:
        """Return p(x given z) of a modality, see :meth:`betavi.module.MultimodalVAE.decode`."""
        return self.module.decode(z, tensors, name, log_size, batch)

    def covariates(self, adata: AnnOrMuData) -> Covariates:
        """Return the covariates of every cell, by the user's names."""
        return covariates_of(self.manager(adata), self.registry_["setup_args"])

    @property
    def covariate_sizes(self) -> CovariateSizes:
        """Numbers of batches, labels, continuous covariates, and of categories of other covariates."""
        stats = self.summary_stats
        covariates = self.registry_["field_registries"].get(REGISTRY_KEYS.CAT_COVS_KEY, {})
        numbers = covariates.get("state_registry", {}).get("n_cats_per_key")
        n_continuous = stats.get("n_extra_continuous_covs", 0)
        n_categories = () if numbers is None else tuple(numbers)
        return CovariateSizes(stats.n_batch, stats.n_labels, n_continuous, n_categories)

    @property
    def largest_totals(self) -> dict[str, float]:
        """Largest total count of a cell with full weight in training, by modality."""
        limits = self.module.depth_limits.items()
        return {name: cast("DepthLimit", limit).largest_total.item() for name, limit in limits}

    # -- state --------------------------------------------------------------------------------

    def held_out(self, adata: AnnOrMuData, enough: int = ENOUGH_HELD_OUT) -> np.ndarray:
        """Return the cells held out from training.

        If there are fewer than ``enough``, return all cells.
        """
        held_out = getattr(self, "validation_indices", None)
        if held_out is not None and len(held_out) >= enough and self.was_split(adata):
            return np.asarray(held_out)
        return np.arange(adata.n_obs)

    def seen(self, adata: AnnOrMuData) -> np.ndarray:
        """Return the training cells. For another object, return all cells."""
        seen = getattr(self, "train_indices", None)
        if seen is None or not len(seen) or not self.was_split(adata):
            return np.arange(adata.n_obs)
        return np.asarray(seen)

    def has_seen(self, adata: AnnOrMuData, cells: np.ndarray) -> bool:
        """Return True if any of the cells was in training."""
        seen = getattr(self, "train_indices", None)
        return seen is not None and self.was_split(adata) and bool(np.isin(cells, seen).any())

    def was_split(self, adata: AnnOrMuData) -> bool:
        """Return True if the object was split for training.

        A loaded model compares numbers of cells.
        """
        parts = [getattr(self, f"{part}_indices", None) for part in ("train", "validation", "test")]
        split = np.concatenate([part for part in parts if part is not None])
        return adata is self.adata and (hasattr(self, "trainer") or len(split) == adata.n_obs)

    def refuse_minified(self, ability: str) -> None:
        """Raise a ValueError if the model's object is minified.

        ``ability`` is the method's name.
        """
        if getattr(self, "minified_data_type", None) is not None:
            raise ValueError(
                f"`{ability}` needs counts, but the model's object is minified: it holds "
                f"posteriors in place of counts. Call `{ability}` before minifying. Or, load the "
                "model with the original object: load(..., adata=...)"
            )

    @contextmanager
    def at_beta(self, beta: float | None) -> Iterator[None]:
        """Use β inside a ``with`` block.

        None means the β of minified posteriors, or the default.
        """
        if getattr(self, "minified_data_type", None) is not None:
            stored = self.adata.uns.get("betavi", {}).get(MINIFIED_BETA, self.module.settled_beta)
            beta = stored if beta is None else beta
            if not math.isclose(beta, stored, rel_tol=ROUNDING):
                raise ValueError(
                    f"beta={beta:g} was passed, but the object is minified: it holds posteriors at "
                    f"beta={stored:g} only. For another β, load the model with the original "
                    "object: load(..., adata=...)"
                )
        if beta is not None:
            self.module.check_beta(beta)
        if beta is None or self.module.beta_condition.is_fixed:
            yield
            return
        with self.module.beta_condition.at(float(beta)):
            yield

    @property
    def beta_in_force(self) -> float:
        """Weight of the rate (KL) after training. NaN if training kept the rate constant."""
        is_held = not self.module.held_rate.isnan()
        return float("nan") if is_held else self.module.settled_beta

    @contextmanager
    def seeded(self, seed: int | None) -> Iterator[None]:
        """Use evaluation mode inside a ``with`` block, and draws from ``seed`` if it is given."""
        self.module.eval()
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield

    def cached(self, name: str, key: Any, make: Callable[[], Any]) -> Any:
        """Return the stored value if ``key`` is unchanged, or compute and store it."""
        stored: dict[str, tuple[Any, Any]] = self.__dict__.setdefault("_cache", {})
        if name not in stored or stored[name][0] != key:
            stored[name] = key, make()
        return stored[name][1]

    # -- hooks of scvi-tools ------------------------------------------------------------------

    def default_epochs(self, n_cells: int) -> int | None:
        """Return the default number of epochs, or None to let scvi-tools choose the number."""
        return None

    def _check_if_trained(self, warn: bool = True, message: str = UNTRAINED) -> None:
        super()._check_if_trained(warn, message)

    def _validate_anndata(
        self, adata: AnnOrMuData | None = None, copy_if_view: bool = True
    ) -> AnnOrMuData:
        """Check an object, and register it if it is new to the model."""
        if adata is None and self.adata is None:
            raise ValueError("The model was loaded without an object. Pass `adata`.")
        if adata is None or is_registered(self, adata):
            check_registered(self, adata)
            return super()._validate_anndata(adata, copy_if_view)
        if isinstance(adata, AnnData | MuData):
            refuse_other_kind(self, adata)
        self.adapter.check_new(self, adata)
        with untouched_on_failure(adata):
            return super()._validate_anndata(adata, copy_if_view)


def numpy_generator() -> np.random.Generator:
    """Return a NumPy generator seeded from torch, which follows ``scvi.settings.seed``."""
    return np.random.default_rng(int(torch.randint(2**31, ())))
