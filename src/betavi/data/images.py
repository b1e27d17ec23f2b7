"""Images of cells: their format, and the names of their pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scvi.data.fields import MuDataWrapper, ObsmField

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

FORMAT = "image_format"
"""Key of the format of images in the registry."""

SAMPLED_VALUES = 2**20
"""Pixels from which the quantisation step is found. Not tuned."""

LEVELS_WITHOUT_STEP = 255
"""Steps between the lowest and the highest value of images that have no quantisation step."""


class ImageFormat(NamedTuple):
    """Size and values of the images of one modality.

    Parameters
    ----------
    n_channels, height, width
        Size of an image.
    step
        Quantisation step: the difference between neighbouring grey levels, 1 for whole numbers.
    lowest, highest
        Range of the values.
    has_step
        True if all values lie on a grid with this step.

    Examples
    --------
    >>> from betavi.data import ImageFormat
    >>> image = ImageFormat(2, 32, 48)
    >>> image.n_pixels, image.names()[:2]
    (3072, ['c0_y0_x0', 'c0_y0_x1'])
    """

    n_channels: int
    height: int
    width: int
    step: float = 1.0
    lowest: float = 0.0
    highest: float = 255.0
    has_step: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of channels, rows and columns."""
        return self.n_channels, self.height, self.width

    @property
    def n_pixels(self) -> int:
        """Number of values of an image, in all channels."""
        return self.n_channels * self.height * self.width

    @property
    def n_levels(self) -> int:
        """Number of grey levels from the lowest to the highest value."""
        return 1 + round((self.highest - self.lowest) / self.step)

    def names(self) -> list[str]:
        """Return the names of the pixels, in the order of a flat image."""
        channels, rows, columns = map(range, self.shape)
        return [f"c{c}_y{y}_x{x}" for c in channels for y in rows for x in columns]


def image_format(images: np.ndarray) -> ImageFormat:
    """Return the format of images, ``(n_cells, n_channels, height, width)``.

    The quantisation step is the smallest difference of two values, if all values lie on a grid with
    this step. Otherwise it is 1/255 of the range.
    """
    lowest, highest = float(images.min()), float(images.max())
    values = images.reshape(-1)[:: max(1, images.size // SAMPLED_VALUES)].astype(np.float64)
    step = _common_step(np.unique(np.append(values, [lowest, highest])))
    spread = (highest - lowest) / LEVELS_WITHOUT_STEP
    n_channels, height, width = images.shape[1:]
    return ImageFormat(
        n_channels, height, width, step or spread or 1.0, lowest, highest, step is not None
    )


def _common_step(levels: np.ndarray) -> float | None:
    """Return the step of a grid on which all sorted values lie, or None."""
    differences = np.diff(levels)
    if not len(differences):
        return None
    step = differences.min()
    numbers = (levels - levels[0]) / step
    on_grid = np.abs(numbers - numbers.round()).max() < 0.01
    # whole numbers in which the smallest difference is missing from the sample
    is_whole = bool((levels == levels.round()).all())
    return float(step) if on_grid else (1.0 if is_whole else None)


class ImageField(ObsmField):
    """scvi-tools' field of ``obsm``, for images."""

    def __init__(self, registry_key: str, attr_key: str) -> None:
        super().__init__(registry_key, attr_key, correct_data_format=False)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Register the format of the images, and names of the pixels."""
        self.validate_field(adata)
        image = image_format(np.asarray(self.get_field_data(adata)))
        return {
            self.COLUMN_NAMES_KEY: np.array(image.names()),
            FORMAT: [float(value) for value in image],
        }

    def transfer_field(
        self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any
    ) -> dict[str, Any]:
        """Register other images, which keep the format of the first ones."""
        self.validate_field(adata_target)
        return state_registry.copy()


MuDataImageField = MuDataWrapper(ImageField)


def format_in(registry: Mapping[str, Any], key: str) -> ImageFormat | None:
    """Return the registered format of a modality's images. None if the modality has no images.

    Parameters
    ----------
    registry
        scvi-tools' registry of a model or a data manager.
    key
        Key of the modality: its name, or ``"X"`` for an AnnData.

    Returns
    -------
    Format of the images, or None.

    Examples
    --------
    >>> import betavi
    >>> from betavi.data import format_in
    >>> adata = betavi.datasets.simulate_counts(n_cells=20, n_genes=5)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> format_in(betavi.BetaVI(adata).registry_, "X") is None
    True
    """
    state = registry["field_registries"].get(key, {}).get("state_registry", {})
    if FORMAT not in state:
        return None
    channels, height, width, step, lowest, highest, has_step = state[FORMAT]
    return ImageFormat(
        int(channels), int(height), int(width), step, lowest, highest, bool(has_step)
    )
