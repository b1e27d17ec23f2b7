"""Calibrated p-values of cells and latent positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from betavi.diagnostics import CellScores, SupportCalibration
from betavi.model.core.beta import takes_beta
from betavi.model.core.density import (
    ENOUGH_KNOWN,
    calibration_cells,
    checked_positions,
    density_calibration,
    latent_density,
)
from betavi.model.setup.messages import name_some, warn
from betavi.model.support.scores import score_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.diagnostics import LatentDensity
    from betavi.model.core.latent_model import LatentModel

SHARES = (1.0, 0.5, 0.25, 0.125)
"""Shares of molecules at which held-out cells are scored, to calibrate shallow cells; not tuned."""

ALL = -1
"""Key of the calibration on all held-out cells, whatever modalities they have."""


@takes_beta
def support(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    latent: np.ndarray | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Return outlier scores of cells or latent positions, with calibrated p-values.

    A cell is outlying if few cells are near it in the latent space, or if its counts are less
    likely than counts drawn from its decoded distribution. The second score compares the 50
    features with the lowest likelihood. Both scores are standardised at the depth of the cell. The
    p-value is the share of held-out cells that are at least as outlying at the same depth:
    molecules of deeper held-out cells are removed at random. For cells like the held-out cells,
    about 1 in 20 p-values is below 0.05. In a joint model, a cell is compared with held-out cells
    with the same modalities, if there are at least 100. All cells use the same random numbers, so a
    p-value does not depend on other cells.

    Parameters
    ----------
    adata
        Object with the cells. If None, the model's own object.
    latent
        Latent positions in place of cells, ``(n, n_latent)``. Positions have no counts, so the
        p-value only compares the density at a position with the density at the posterior means of
        held-out cells. Pass posterior means: positions drawn from posteriors are farther out, and
        have lower p-values.
    indices
        Names, positions or a mask of the cells to score. If None, all cells.
    show_progress
        Show a progress bar.

    Returns
    -------
    Data frame, indexed by cell names, with ``log_density`` at the posterior mean, in nats, and
    ``p_value``. With cells, there are two more columns. ``reconstruction_excess`` is the
    reconstruction loss of a cell minus the loss of counts drawn from its decoded distribution, in
    nats. ``outlier_score`` combines both scores, and is above 0. Cells without counts have NaN. A
    warning names cells that are more than twice as deep as any held-out cell, or less than half as
    deep.

    Raises
    ------
    ValueError
        If cells and positions are both given, positions have the wrong number of dimensions or are
        not finite, or the object is minified and has no counts.
    KeyError, IndexError
        If a cell does not exist.

    References
    ----------
    Bates et al. (2023), Testing for outliers with conformal p-values. Nalisnick et al. (2019), Do
    deep generative models know what they don't know?, on why a density of data is not enough.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=300, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> found = model.support(show_progress=False)
    >>> found.shape, bool(found["p_value"].between(0, 1).all())
    ((300, 4), True)
    """
    if latent is not None:
        if adata is not None or indices is not None:
            raise ValueError("Pass either cells (`adata`, `indices`) or positions (`latent`).")
        positions = checked_positions(model, latent)
        log_density = latent_density(model, show_progress).log_prob(positions)
        p_value = density_calibration(model, show_progress).p_value(log_density)
        return pd.DataFrame({"log_density": log_density, "p_value": p_value})
    model.refuse_minified("support")
    adata = model._validate_anndata(adata)
    cells = np.arange(adata.n_obs) if indices is None else np.asarray(indices)
    density = latent_density(model, show_progress)
    calibrations = _calibrations(model, density, show_progress)
    progress = "Scoring cells" if show_progress else None
    scored, pattern, is_empty = score_cells(model, adata, cells, density, progress=progress)
    scores = CellScores(*(part[0] for part in scored))
    table = pd.DataFrame(scores._asdict(), index=adata.obs_names[cells])
    table = table.drop(columns="log_depth").assign(outlier_score=0.0, p_value=1.0)
    is_beyond = np.zeros(len(table), dtype=bool)
    for code in np.unique(pattern):
        mine = pattern == code
        part, known = scores.of(mine), calibrations.get(int(code), calibrations[ALL])
        table.loc[mine, "outlier_score"] = known.outlier_score(part)
        table.loc[mine, "p_value"] = known.p_value(part)
        is_beyond[mine] = known.is_beyond(part)
    table.loc[is_empty, ["reconstruction_excess", "outlier_score", "p_value"]] = np.nan
    _warn_about_depths(table.index, is_empty, is_beyond & ~is_empty)
    return table


def _calibrations(
    model: LatentModel, density: LatentDensity, show_progress: bool
) -> dict[int, SupportCalibration]:
    """Return calibrations on the held-out cells, by set of modalities and for all cells."""

    def make() -> dict[int, SupportCalibration]:
        cells = calibration_cells(model, density)
        progress = "Calibrating" if show_progress else None
        adata = model._validate_anndata(None)
        # images have no depth
        has_depth = any(not model.likelihood(name).of_images for name in model.modalities)
        shares = SHARES if has_depth else (1.0,)
        scores, pattern, _ = score_cells(model, adata, cells, density, shares, progress)
        calibrations = {ALL: SupportCalibration(scores)}
        for code in np.unique(pattern):
            mine = pattern == code
            if ENOUGH_KNOWN <= mine.sum() < len(mine):
                calibrations[int(code)] = SupportCalibration(scores.of(mine))
        return calibrations

    return model.cached("calibrations", density, make)


def _warn_about_depths(names: pd.Index, is_empty: np.ndarray, is_beyond: np.ndarray) -> None:
    if is_empty.any():
        warn(
            f"{is_empty.sum()} cell(s) have no counts, and therefore no p-value (NaN): "
            f"{name_some(names[is_empty])}."
        )
    if is_beyond.any():
        warn(
            f"{is_beyond.sum()} cell(s) have more than twice the counts of the deepest calibration "
            "cell, or less than half the counts of the shallowest. Their p-values are those at the "
            f"nearest calibrated depth, and may be inaccurate: {name_some(names[is_beyond])}."
        )
