"""Empty regions between cells, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi import diagnostics
from betavi.model.core.beta import takes_beta
from betavi.model.core.density import MOST_CELLS
from betavi.model.generation.decoded_points import decode_options, decode_points, points_as_cells
from betavi.model.generation.latent_reference import latent_reference, positions_table
from betavi.model.setup.messages import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel

MOST_DIMENSIONS = 3
"""Largest number of dimensions in which most planted holes were found, in every data set."""


@takes_beta
def find_holes(
    model: LatentModel,
    level: float = 0.01,
    batch: str | int | None = None,
    library_size: float | Mapping[str, float] | None = None,
    seed: int = 0,
    show_progress: bool = True,
) -> AnnOrMuData:
    """Return empty regions of the latent space that are surrounded by cells, decoded.

    A hole is a ball without cells that is too large to be empty by chance, see
    :func:`betavi.diagnostics.find_holes`. Use two or three latent dimensions. In more dimensions,
    the method can miss most holes, and gives a warning.

    Parameters
    ----------
    level
        Probability that the method reports a hole although the density of cells is even.
    batch, library_size
        Batch and library size to decode with, see :meth:`interpolate`.
    seed
        Seed of the search.
    show_progress
        Show progress bars.

    Returns
    -------
    Object with a row per hole, the largest first, and the columns of :meth:`interpolate`. ``obs``
    also has ``evidence``, ``depth`` and ``share``, see :class:`betavi.diagnostics.Holes`, and
    ``start`` and ``end``, two cells whose connecting line passes close to the centre of the hole.
    Without holes, the object has no rows.

    Raises
    ------
    ValueError
        If ``level`` is not between 0 and 1, or the batch or the size is invalid.

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
        raise ValueError(f"`level` must be a probability between 0 and 1, not {level!r}.")
    options = decode_options(model, batch, library_size)
    reference = latent_reference(model, show_progress)
    some = np.random.default_rng(seed).permutation(len(reference.mean))[:MOST_CELLS]
    _warn_many_dimensions(reference.mean.shape[1])
    found = diagnostics.find_holes(reference.mean[some], level, seed)
    decoded = decode_points(model, reference, found.centres, options, show_progress)
    names = [f"hole_{number}" for number in range(len(found.centres))]
    obs = positions_table(reference, found.centres, names)
    obs = obs.assign(evidence=found.evidence, depth=found.depth, share=found.share)
    for word, cells in zip(("start", "end"), found.ends.T, strict=True):
        obs[word] = reference.names[some[cells]].to_numpy()
    return points_as_cells(model, obs, found.centres, decoded)


def _warn_many_dimensions(n_latent: int) -> None:
    if n_latent > MOST_DIMENSIONS:
        warn(
            f"find_holes() can miss most holes in {n_latent} latent dimensions. If no holes are "
            "reported, there may still be holes. To search for holes, train with "
            f"n_latent={MOST_DIMENSIONS} or less."
        )
