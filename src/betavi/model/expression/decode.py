"""Decoding of cells: choice of the modality, and values read from its decoded distribution."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scvi.data._utils import _validate_adata_dataloader_input

from betavi.likelihoods import LIKELIHOODS
from betavi.model.core.covariates import batch_codes
from betavi.model.setup.selection import features_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from scvi._types import AnnOrMuData

    from betavi.likelihoods import Likelihood
    from betavi.model.core.latent_model import LatentModel, Tensors

IN_EXPRESSION = "Expression"
NOT_OF_IMAGES = (
    "For images, use `denoise`. To compare two groups of images, use `interpolate` between them."
)

Batches = str | int | list[str] | list[int] | None


class DecodeRequest(NamedTuple):
    """Cells, modality, features and batches to decode.

    ``cells`` are positions. ``transform_batch`` has the user's names of batches. If there is a
    ``dataloader``, its minibatches replace the cells of ``adata``.
    """

    model: LatentModel
    adata: AnnOrMuData | None
    name: str
    cells: Sequence[int] | np.ndarray | None = None
    features: Sequence[str] | None = None
    transform_batch: Batches = None
    n_samples: int = 1
    batch_size: int | None = None
    average_draws: bool = True
    progress: str | None = None
    loader_kwargs: Mapping[str, Any] = MappingProxyType({})
    dataloader: Iterable[Tensors] | None = None

    @property
    def columns(self) -> np.ndarray | None:
        """Positions of the requested features. If None, all features are decoded."""
        if self.features is None:
            return None
        owner = f"The modality {self.name!r}" if len(self.model.modalities) > 1 else "adata"
        return features_named(self.model.features(self.name), self.features, owner)

    @property
    def codes(self) -> list[int | None]:
        """Codes of the requested batches. ``[None]`` is each cell's own batch."""
        return batch_codes(self.model.adata_manager, self.transform_batch)

    def decoded(
        self, read: Callable[[Any], Any], codes: list[int | None], columns: np.ndarray | None = None
    ) -> Iterator[tuple[dict[str, Any], Any]]:
        """Yield the posterior of each minibatch, and the values that ``read`` returns.

        ``read`` takes p(x given z). Values, ``([n_samples,] n_cells, n_features)``, are averaged
        over the batches ``codes``. Only the features ``columns`` are decoded. None means all
        features.
        """
        minibatches = self.dataloader
        if minibatches is None:
            loading = self.cells, self.batch_size, None, self.progress
            minibatches = self.model.minibatches(self.adata, *loading, **self.loader_kwargs)
        for tensors in minibatches:
            inferred = self.model.infer(tensors, self.n_samples)
            decoding = self.model, tensors, inferred, self.name
            with self.model.likelihood(self.name).only(columns):
                each = [read(decoded_distribution(*decoding, code)) for code in codes]
            yield inferred, torch.stack(each).mean(dim=0) if len(each) > 1 else each[0]

    def values(self, read: Callable[[Any], Any]) -> np.ndarray:
        """Return all values joined, ``([n_samples,] n_cells, n_features)``."""
        columns, parts = self.columns, []
        only = columns if self.model.likelihood(self.name).scale_is_local else None
        for _, values in self.decoded(read, self.codes, only):
            # draws are averaged here to save memory
            is_averaged = self.n_samples > 1 and self.average_draws
            parts.append((values.mean(dim=0) if is_averaged else values).cpu().numpy())
        found = np.concatenate(parts, axis=-2)
        return found if columns is None or only is not None else found[..., columns]

    def table(self, read: Callable[[Any], Any], return_numpy: bool | None) -> Any:
        """Return all values as a data frame, or as an array if requested or necessary."""
        if self.dataloader is not None:
            return self.values(read)
        adata = self.model._validate_anndata(self.adata)
        values = self._replace(adata=adata).values(read)
        if return_numpy or values.ndim == 3:
            return values
        names = adata.obs_names if self.cells is None else adata.obs_names[self.cells]
        columns = self.model.features(self.name) if self.features is None else list(self.features)
        return pd.DataFrame(values, index=names, columns=columns)


def check_dataloader(
    model: LatentModel, adata: AnnOrMuData | None, dataloader: Any, **need_adata: Any
) -> None:
    """Raise a ValueError if a ``dataloader`` comes with ``adata`` or an argument that needs it."""
    _validate_adata_dataloader_input(model, adata, dataloader)
    passed = [name for name, value in need_adata.items() if value is not None]
    if dataloader is not None and passed:
        raise ValueError(
            f"`{passed[0]}` cannot be combined with `dataloader`, because it needs an object. Pass "
            f"`adata` in place of `dataloader`, or leave `{passed[0]}` out."
        )


def decoded_distribution(
    model: LatentModel, tensors: Tensors, inferred: dict[str, Any], name: str, code: int | None
) -> Any:
    """Return p(x given z) of a modality. If cells may lack the modality, use the typical size."""
    typical = model.module.typical(name)
    size = model.module.log_sizes(tensors, inferred, name) if typical is None else typical.usual
    return model.decode(inferred["z"], tensors, name, size, code)


def suitable_modality(
    model: LatentModel,
    modality: str | None,
    is_suitable: Callable[[Likelihood | type[Likelihood]], bool],
) -> str:
    """Return the requested modality, or the only modality with a suitable likelihood."""
    suitable = [name for name in model.modalities if is_suitable(model.likelihood(name))]
    choices = ", ".join(map(repr, suitable))
    if modality is not None:
        (name,) = model.named_modalities(modality)
        if name not in suitable:
            raise ValueError(
                f"The modality {name!r} has the likelihood "
                f"{model.module.likelihood_names[name]!r}, which this method does not support. "
                f"Supported modalities of the model: {choices or 'none'}."
            )
        return name
    if not suitable:
        own = ", ".join(map(repr, model.module.likelihood_names.values()))
        supported = ", ".join(repr(word) for word, kind in LIKELIHOODS.items() if is_suitable(kind))
        raise ValueError(
            f"The model has the likelihoods {own}, but this method needs one of {supported}."
        )
    if len(suitable) > 1:
        raise ValueError(f"Several modalities are suitable: {choices}. Choose one with `modality`.")
    return suitable[0]


def expression_modality(
    model: LatentModel, modality: str | None, *, any_named: bool = False
) -> str:
    """Return the requested modality. Without ``any_named``, the modality must have counts.

    If None, return the only modality with counts. Proteins with a background are not considered.
    """
    if modality is None and len(model.modalities) == 1:
        name = model.modalities[0]
        model.refuse_images(IN_EXPRESSION, NOT_OF_IMAGES)
        return name
    if modality is not None:
        model.refuse_images(IN_EXPRESSION, NOT_OF_IMAGES, model.named_modalities(modality))

    def is_suitable(part: Likelihood | type[Likelihood]) -> bool:
        by_default = not (part.is_of_detection or part.has_background or part.of_images)
        return by_default if modality is None else any_named or not part.is_of_detection

    return suitable_modality(model, modality, is_suitable)
