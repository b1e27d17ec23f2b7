"""Destination of denoised images: entries of ``obsm``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from betavi.model.io.writer import merged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

    from betavi.data import ImageFormat
    from betavi.model.denoising.estimate import DenoiseOptions
    from betavi.model.denoising.storage_format import StorageFormat
    from betavi.model.io.writer import Writer


@dataclass
class ImageDestination:
    """Entries of ``obsm`` for the denoised images of a modality, in the shape of the images.

    It has the attributes and methods of
    :class:`~betavi.model.denoising.destination.Destination`.
    """

    name: str
    adata: AnnData
    prefix: str
    image: ImageFormat
    image_key: str
    layer: str | None
    std_layer: str | None
    storage_format: StorageFormat
    genes: Sequence[str] | None = None
    features: None = None
    n_done: int = 0
    values: dict[str, np.ndarray] = field(default_factory=dict)

    def check(self, out: str | Path | None) -> None:
        """Raise a ValueError if an option is not for images, or images would be overwritten."""
        unfit = {
            "out": out, "gene_list": self.genes, "drop_below": self.storage_format.drop_below,
        }  # fmt: skip
        if given := [word for word, value in unfit.items() if value is not None]:
            raise ValueError(
                f"`{given[0]}` is not available for images ({self.name!r}). Leave it out, or choose other "
                "modalities with `modalities`."
            )
        if self.layer is None:
            raise ValueError(
                "Denoised images are written to `obsm`, so they need a name: layer_added='denoised'"
            )
        if self.layer == self.std_layer:
            raise ValueError(
                f"`layer_added` and `std_layer_added` are both {self.layer!r}. Use different names."
            )
        written = self.adata.uns.get("betavi", {}).get("denoised", {})
        for layer in (self.layer, self.std_layer):
            if layer in self.adata.obsm and f"{layer} in obsm" not in written:
                raise ValueError(
                    f"obsm[{layer!r}] exists, and denoise() did not write it. Choose another name: "
                    "layer_added=..."
                )

    def add(self, mean: np.ndarray, std: np.ndarray, _writer: Writer | None) -> None:
        """Add the images of the next cells."""
        mean, std = self.storage_format.converted(mean, std)
        block = {self.layer: mean} | ({} if self.std_layer is None else {self.std_layer: std})
        for layer, some in block.items():
            shape = (self.adata.n_obs, *self.image.shape)
            stored = self.values.setdefault(str(layer), np.empty(shape, some.dtype))
            stored[self.n_done : self.n_done + len(some)] = some.reshape(-1, *self.image.shape)
        self.n_done += len(mean)

    def record(self, options: DenoiseOptions) -> dict[str, Any]:
        """Return the entry of ``uns`` about the images."""
        batches = options.transform_batch
        names = [batches] if isinstance(batches, str) else batches
        entry = {
            "estimate": options.estimate,
            "batches": "own" if names is None else list(map(str, names)),
            "n_samples": options.n_samples,
            "beta": options.beta,
        }
        return {"denoised": {f"{layer} in obsm": entry for layer in self.values}}

    def put(self, record: dict[str, Any]) -> None:
        """Write the images into the object, and the record into its ``uns``."""
        for layer, images in self.values.items():
            self.adata.obsm[layer] = images
        self.adata.uns["betavi"] = merged(self.adata.uns.get("betavi", {}), record)
