"""Planted holes in latent spaces of real cells.

The cells in a ball around a random cell are removed. The hole is found if a reported centre is inside
that ball. Chance is the probability that one of as many random points is: midpoints of pairs of cells,
or cells, drawn before the removal. ``before`` is how often a hole of the intact cells is there
already, ``surrounded`` how often cells are on all sides of the ball. Null: samples of the normal
distribution, and of the mixture of them, that fit the latent space. Gaps between components are holes
of the mixture: false are those where its density is not below that around them. These data sets had no
part in the choice of the method. ``python -m benchmarks.holes``, a quarter of an hour.
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import anndata
import mudata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi

from benchmarks.peers import quietly, real_folder
from betavi import BetaVI
from betavi.diagnostics import LatentDensity, find_holes, fit_density
from betavi.diagnostics.holes import ENCLOSED, SHELL, _depth

if TYPE_CHECKING:
    from collections.abc import Iterator

SETS = {
    "zeisel": "zeisel_1464x1000.h5ad",
    "donor A": "pbmc_frozen_donorA.h5ad",
    "norman": "norman19_mcfaline23_counts.h5ad",
    "pbmc10k": "pbmc10k_6855x4000.h5mu",
}
N_CELLS, N_GENES, N_EPOCHS = 2000, 1000, 12
N_LATENT, SHARES, REPEATS = (2, 3, 5, 10), (0.02, 0.05, 0.1), 4


class Plant(NamedTuple):
    """A hole, and the cells outside of it."""

    centre: np.ndarray
    radius: float
    rest: np.ndarray

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Return whether points are inside the hole."""
        return np.linalg.norm(points - self.centre, axis=1) < self.radius

    def is_surrounded(self) -> bool:
        """Return whether cells are on all sides, as the finder defines it."""
        distance = np.linalg.norm(self.rest - self.centre, axis=1)
        around = self.rest[distance < SHELL ** (1 / len(self.centre)) * self.radius]
        depth = len(around) and _depth(around - self.centre, np.random.default_rng(0))
        return bool(depth >= ENCLOSED)


def read(name: str) -> anndata.AnnData:
    """Read some cells, and the genes that vary most."""
    path = real_folder() / SETS[name]
    whole = mudata.read_h5mu(path)["rna"] if path.suffix == ".h5mu" else anndata.read_h5ad(path)
    adata = anndata.AnnData(whole.X.astype(np.float32), var=whole.var[[]])
    if adata.n_vars > N_GENES:
        log = sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True)
        sc.pp.highly_variable_genes(log, n_top_genes=N_GENES)
        adata = adata[:, log.var["highly_variable"]].copy()
    sc.pp.filter_cells(adata, min_counts=1)
    some = np.random.default_rng(0).permutation(adata.n_obs)[:N_CELLS]
    return adata[np.sort(some)].copy()


def latent(adata: anndata.AnnData, n_latent: int) -> np.ndarray:
    """Train, and return positions of cells."""
    scvi.settings.seed = 0
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=n_latent)
    model.train(N_EPOCHS, accelerator="cpu", train_size=0.9, enable_progress_bar=False)
    return np.asarray(model.get_latent_representation(), dtype=float)


def plants(cells: np.ndarray) -> Iterator[tuple[float, Plant]]:
    """Remove the cells around random ones; yield their share, too."""
    for share, seed in product(SHARES, range(REPEATS)):
        centre = cells[np.random.default_rng(seed).integers(len(cells))]
        distance = np.linalg.norm(cells - centre, axis=1)
        radius = float(np.quantile(distance, share))
        yield share, Plant(centre, radius, cells[distance >= radius])


def planted(cells: np.ndarray) -> pd.DataFrame:
    """Search for planted holes: a row for each."""
    pairs = np.random.default_rng(0).integers(len(cells), size=(2, 20_000))
    midpoints, before, rows = cells[pairs].mean(axis=0), find_holes(cells).centres, []
    for seed, (share, plant) in enumerate(plants(cells)):
        centres = find_holes(plant.rest, seed=seed).centres
        row = {"share": share, "surrounded": plant.is_surrounded(), "reported": len(centres)}
        row |= {"found": plant.inside(centres).any(), "before": plant.inside(before).any()}
        for word, points in (("midpoints", midpoints), ("cells", cells)):
            row[f"by {word}"] = 1 - (1 - plant.inside(points).mean()) ** len(centres)
        rows.append(row)
    return pd.DataFrame(rows).astype(float)


def null(cells: np.ndarray) -> dict[str, float]:
    """Return mean numbers of holes in samples without planted ones."""
    mixture, rng = fit_density(cells), np.random.default_rng(0)
    normal = LatentDensity(np.ones(1), cells.mean(axis=0)[None], np.cov(cells.T)[None], 0.0)
    counts = {}
    for word, density in (("normal", normal), ("mixture", mixture)):
        found = [find_holes(density.sample(len(cells), rng), seed=i) for i in range(REPEATS)]
        many = density.sample(100_000, rng)
        false = [sum(map(partial(is_even, many), f.centres, f.radius)) for f in found]
        counts[word] = float(np.mean([len(f.centres) for f in found]))
        counts[f"{word}, false"] = float(np.mean(false))
    return counts


def is_even(many: np.ndarray, centre: np.ndarray, radius: float) -> bool:
    """Return whether the density in a ball is not below that around it."""
    distance = np.linalg.norm(many - centre, axis=1)
    reach = SHELL ** (1 / len(centre)) * radius
    return bool(SHELL * (distance < radius).sum() >= (distance < reach).sum())


def main(*names: str) -> None:
    quietly(n_threads=1)
    tables, nulls = {}, {}
    for name in names or SETS:
        adata = read(name)
        for n_latent in N_LATENT:
            cells = latent(adata, n_latent)
            tables[name, n_latent], nulls[name, n_latent] = planted(cells), null(cells)
        print(f"{name}: done", flush=True)
    rows = pd.concat(tables, names=["set", "n_latent"]).reset_index([0, 1])
    for title, some in (("All", rows), ("Surrounded", rows[rows["surrounded"] == 1])):
        for by in (["set", "n_latent"], ["n_latent", "share"]):
            groups = some.groupby(by, sort=False)
            means = groups.mean(numeric_only=True).assign(planted=groups.size())
            print(f"{title}, by {by}:\n{means.round(2).to_string()}\n")
    print(f"Holes in samples without any:\n{pd.DataFrame(nulls).T.round(3).to_string()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
