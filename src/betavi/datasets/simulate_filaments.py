"""Simulated images of filaments, and RNA of the same cells, with known truth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse, special

from betavi import _blocks
from betavi._mudata import assembled
from betavi._tables import check_whole, lookup
from betavi.datasets import draws, filaments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData
    from numpy.random import Generator

MEDIAN_NUMBER, MOST_FILAMENTS = 8.0, 24
LONGEST, MEDIAN_LENGTH, MEDIAN_PERSISTENCE = 1.5, 0.6, 0.4
"""Lengths relative to the image size."""

MEDIAN_THICKNESS = 0.6
LOG_SDS = {"number": 0.3, "length": 0.3, "persistence": 0.5, "thickness": 0.25, "brightness": 0.3}
"""Standard deviation of the logarithm of each trait. Factor k sets trait k."""

ROUNDING_VARIANCE = 1 / 12


def simulate_filaments(
    n_cells: int = 1000,
    size: int = 64,
    n_genes: int = 100,
    n_factors: int = 8,
    *,
    layout_share: float = 0.9,
    psf: str = "gaussian",
    psf_width: float = 2.5,
    brightness: float = 300.0,
    background: float = 4.0,
    read_noise: float = 1.5,
    gain: float = 2.0,
    offset: float = 100.0,
    bits: int = 12,
    library_size: float = 1000.0,
    seed: int = 0,
) -> MuData:
    r"""Simulate microscope images of filaments, and RNA counts of the same cells.

    The latent factors :math:`z` of a cell set its filaments and its RNA. Each of the first five
    factors sets one trait of the filaments: their number, length, persistence, thickness and
    brightness. All factors together set where the filaments lie and how they bend. The filaments
    are worm-like chains: the direction is a random walk along the curve. The microscope blurs the
    filaments, and the camera adds noise. The camera counts are
    ``offset + gain * (Poisson(photons) + Normal(0, read_noise))``, rounded and limited to ``bits``.

    Parameters
    ----------
    n_cells
        Number of cells.
    size
        Height and width of an image, in pixels.
    n_genes
        Number of genes. With 0, the RNA is left out.
    n_factors
        Dimension of :math:`z`, at least 5.
    layout_share
        Share of the variance of places and bends that is not random. Half of this share is common
        to all cells, and the factors set the other half. With 0, the factors set only the traits.
    psf
        Point spread function: ``"gaussian"``, or ``"airy"``, that of an ideal lens.
    psf_width
        Full width of the point spread function at half of its maximum, in pixels.
    brightness
        Median brightness of filaments, in photons per pixel of length.
    background
        Photons per pixel without filaments.
    read_noise
        Standard deviation of the camera's own noise, in photons.
    gain
        Camera counts per photon.
    offset
        Camera counts without light.
    bits
        Bits of a camera count, 8 to 16. The largest count is :math:`2^{bits} - 1`.
    library_size
        Median number of RNA counts per cell.
    seed
        Seed of all random numbers.

    Returns
    -------
    MuData with the modalities ``image`` and ``rna``. The images are ``obsm["image"]`` of
    ``mdata["image"]``, with shape ``(n_cells, 1, size, size)`` and type uint16. This modality has
    no features. Its ``obsm["expected_image"]`` has the images without noise, in camera counts, and
    ``obsm["noise_sd"]`` the standard deviation of the noise of each pixel. The traits are columns
    of its ``obs``. The unit of length, persistence and thickness is the pixel. The thickness is the
    standard deviation of the profile of a filament, before the blur of the microscope. Counts of
    ``rna`` are negative binomial. ``obsm["z"]`` of the MuData has the factors.

    Raises
    ------
    ValueError
        If a number is out of range, or ``psf`` is unknown.

    References
    ----------
    Doi & Edwards (1986), The theory of polymer dynamics, for worm-like chains.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.simulate_filaments(n_cells=20, size=32, n_genes=10)
    >>> mdata["image"].obsm["image"].shape, mdata["rna"].shape
    ((20, 1, 32, 32), (20, 10))
    """
    check_whole("n_cells", n_cells)
    lookup(filaments.TRANSFER, psf, "psf")
    least_zero = {"n_genes": n_genes, "read_noise": read_noise, "offset": offset}
    positive = {"psf_width": psf_width, "brightness": brightness, "gain": gain}
    draws.check_rules(
        (
            *((name, x, 0 <= x < math.inf, "at least 0") for name, x in least_zero.items()),
            *((name, x, 0 < x < math.inf, "above 0") for name, x in positive.items()),
            ("background", background, 0 <= background < math.inf, "at least 0"),
            ("library_size", library_size, 0 < library_size < math.inf, "above 0"),
            ("size", size, size >= 8, "at least 8"),
            ("n_factors", n_factors, n_factors >= len(LOG_SDS), f"at least {len(LOG_SDS)}"),
            ("layout_share", layout_share, 0 <= layout_share <= 1, "between 0 and 1"),
            ("bits", bits, bits in range(8, 17), "a whole number from 8 to 16"),
        )
    )
    rng, rng_genes = np.random.default_rng(seed).spawn(2)
    z = rng.normal(size=(n_cells, n_factors))
    names = pd.Index([f"cell_{i}" for i in range(n_cells)])
    obs = _traits(z, size, brightness).set_index(names)
    optics = psf, psf_width
    light = _light(rng, z, obs, size, layout_share, optics)
    camera = {"offset": offset, "gain": gain, "read_noise": read_noise, "bits": bits}
    image = AnnData(obs=obs, obsm=_photographed(rng, background + light, camera))
    image.uns["camera"] = camera
    parts = {"image": image}
    if n_genes:
        parts["rna"] = _rna(rng_genes, z, n_genes, library_size)
        parts["rna"].obs_names = names
    mdata = assembled(parts)
    mdata.obsm["z"] = z
    return mdata


def _traits(z: np.ndarray, size: int, brightness: float) -> pd.DataFrame:
    medians = {
        "number": MEDIAN_NUMBER,
        "length": MEDIAN_LENGTH * size,
        "persistence": MEDIAN_PERSISTENCE * size,
        "thickness": MEDIAN_THICKNESS,
        "brightness": brightness,
    }
    traits = pd.DataFrame(
        {k: medians[k] * np.exp(sd * z[:, i]) for i, (k, sd) in enumerate(LOG_SDS.items())}
    )
    traits["number"] = traits["number"].round().clip(1, MOST_FILAMENTS).astype(int)
    traits["length"] = traits["length"].clip(upper=LONGEST * size)
    return traits


def _light(
    rng: Generator,
    z: np.ndarray,
    traits: pd.DataFrame,
    size: int,
    layout_share: float,
    optics: tuple[str, float],
) -> np.ndarray:
    """Return the expected photons of the filaments, ``(n_cells, size, size)``."""
    n_steps = math.ceil(LONGEST * size / filaments.STEP)
    sizes = (MOST_FILAMENTS, n_steps, z.shape[1])
    layout = filaments.Layout(rng, sizes, layout_share)
    # a curve may leave the frame, and its light may reach back into the frame
    margin = math.ceil(2 * optics[1] + 4 * traits["thickness"].max())
    frame = slice(margin, margin + size)
    light = np.empty((len(z), size, size), np.float32)
    for start in range(0, len(z), _blocks.SIMULATED_IMAGES):
        rows = slice(start, start + _blocks.SIMULATED_IMAGES)
        some = {name: column.to_numpy()[rows] for name, column in traits.items()}
        n_points = (some["length"] / filaments.STEP).round().astype(int).clip(1, n_steps)
        u = layout.draw(rng, z[rows])
        points = margin + filaments.curves(u, size, some["persistence"], n_points - 1)
        is_shown = np.arange(n_steps) < n_points[:, None, None]
        is_shown = is_shown & (np.arange(MOST_FILAMENTS) < some["number"][:, None])[..., None]
        lines = filaments.drawn(points, is_shown, size + 2 * margin)
        lines *= some["brightness"][:, None, None]
        light[rows] = filaments.seen(lines, some["thickness"], *optics)[:, frame, frame]
    return light


def _photographed(
    rng: Generator, photons: np.ndarray, camera: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Return camera counts of expected photons, their expectation and their noise."""
    offset, gain, read_noise = (camera[name] for name in ("offset", "gain", "read_noise"))
    photons = photons[:, None]
    counts = np.empty(photons.shape, np.uint16)
    for start in range(0, len(counts), _blocks.SIMULATED_IMAGES):
        rows = slice(start, start + _blocks.SIMULATED_IMAGES)
        noisy = rng.poisson(photons[rows]) + read_noise * rng.normal(size=photons[rows].shape)
        counts[rows] = (offset + gain * noisy).round().clip(0, 2 ** int(camera["bits"]) - 1)
    variance = gain**2 * (photons + read_noise**2) + ROUNDING_VARIANCE
    expected = (offset + gain * photons).astype(np.float32)
    return {
        "image": counts,
        "expected_image": expected,
        "noise_sd": np.sqrt(variance).astype(np.float32),
    }


def _rna(rng: Generator, z: np.ndarray, n_genes: int, library_size: float) -> AnnData:
    loadings = draws.draw_loadings(rng, n_genes, z.shape[1])
    log_base, theta = rng.normal(size=n_genes), draws.draw_theta(rng, n_genes)
    library = draws.draw_library_sizes(rng, len(z), library_size)
    blocks = []
    for rows in draws.block_slices(len(z)):
        shares = special.softmax(z[rows] @ loadings.T + log_base, axis=1)
        counts = draws.draw_negative_binomial(rng, library[rows, None] * shares, theta)
        blocks.append(sparse.csr_matrix(counts.astype(np.int32)))
    var = pd.DataFrame({"log_base": log_base, "theta": theta})
    var.index = pd.Index([f"gene_{i}" for i in range(n_genes)])
    return AnnData(sparse.vstack(blocks, format="csr"), var=var, varm={"loadings": loadings})
