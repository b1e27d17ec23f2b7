"""Empty regions between cells, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi import diagnostics
from betavi.model.core.beta import takes_beta
from betavi.model.core.density import MOST_CELLS
from betavi.model.generation.decoded_points import decode_options, decode_points, points_as_cells
from betavi.model.generation.latent_reference import latent_reference, positions_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel

HOLE_LEVEL = 0.01
"""Share of held-out cells at positions as thin as a hole; not tuned."""


@takes_beta
def find_holes(
    model: LatentModel,
    level: float = HOLE_LEVEL,
    batch: str | int | None = None,
    library_size: float | Mapping[str, float] | None = None,
    seed: int = 0,
    show_progress: bool = True,
) -> AnnOrMuData:
    """Return regions of the latent space with cells on all sides and none inside, decoded.

    Experimental: in a first check on real data it missed most holes made by removing the cells in a
    ball, because the fitted density smooths them away.

    Parameters
    ----------
    level
        Share of held-out cells that are at positions as thin as a hole.
    batch, library_size
        Batch and size to decode with, as of :meth:`interpolate`.
    seed
        Seed of the lines between cells that are searched.
    show_progress
        Show progress bars.

    Returns
    -------
    Object with a row per hole, the largest first, and the columns of :meth:`interpolate`. ``obs`` also
    has ``depth``, the least share of the cells beyond the hole in any direction; ``share``, that of the
    lines between two cells that cross it; and ``start`` and ``end``, two cells on its sides. No rows
    if there are no holes.

    Raises
    ------
    ValueError
        If ``level`` is not between 0 and 1, or the batch or the size is invalid.

    References
    ----------
    Tukey (1975), Mathematics and the picturing of data.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.find_holes(show_progress=False).n_vars
    20
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a share of the cells, between 0 and 1, not {level!r}.")
    options = decode_options(model, batch, library_size)
    reference = latent_reference(model, show_progress)
    some = np.random.default_rng(seed).permutation(len(reference.mean))[:MOST_CELLS]
    thin_below = reference.calibration.thin_below(level)
    found = diagnostics.find_holes(reference.density, reference.mean[some], thin_below, seed)
    decoded = decode_points(model, reference, found.centres, options, show_progress)
    names = [f"hole_{number}" for number in range(len(found.centres))]
    obs = positions_table(reference, found.centres, names)
    obs = obs.assign(depth=found.depth, share=found.share)
    for word, cells in zip(("start", "end"), found.ends.T, strict=True):
        obs[word] = reference.names[some[cells]].to_numpy()
    return points_as_cells(model, obs, found.centres, decoded)
