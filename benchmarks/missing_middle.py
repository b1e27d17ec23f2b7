"""Generation of cells of a cluster that was left out of training, compared with the real cells.

Three clusters of the pancreas that lie between two others are left out in turn. Pairs of cells from
both neighbouring clusters are connected, and cells are generated in the middle half of the path:
along straight paths, density paths and decoder geodesics of BetaVI, along straight paths of SCVI,
from the mean profiles, and from the nearest measured cells.
``python -m benchmarks.missing_middle [seed ...]`` takes fifteen minutes per seed.
"""

from __future__ import annotations

import sys
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scvi
import torch
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from benchmarks.peers import REAL, quietly
from betavi import BetaVI
from betavi.diagnostics import along_density, straight
from betavi.diagnostics.paths import resampled
from betavi.metrics import energy_distance, log_fold_changes

if TYPE_CHECKING:
    from anndata import AnnData

N_MIDDLES, N_PAIRS, PER_PAIR = 3, 60, 5
FIRST, LAST = 0.25, 0.75
"""Shares of a path between which cells are generated."""

N_COMPONENTS, NEIGHBOURS, N_STEPS = 30, 15, 33


class Middle(NamedTuple):
    """Cluster, the two clusters around it, and relative length of the path through it."""

    name: str
    ends: tuple[str, str]
    detour: float


class Task(NamedTuple):
    """Input of all methods: cells of other clusters, pairs of cells, shares of paths, totals."""

    seen: AnnData
    pairs: np.ndarray
    shares: np.ndarray
    totals: np.ndarray
    rng: np.random.Generator


def logs(counts: Any) -> np.ndarray:
    counts = sparse.csr_matrix(counts)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    return np.log1p((sparse.diags(1e4 / np.maximum(totals, 1)) @ counts).toarray())


def middles(adata: AnnData) -> list[Middle]:
    """Return clusters that lie between two others, by their centres in principal components."""
    places = PCA(N_COMPONENTS, random_state=0).fit_transform(logs(adata.X))
    clusters = adata.obs["clusters"].astype(str)
    centres = {name: places[(clusters == name).to_numpy()].mean(axis=0) for name in set(clusters)}
    far = lambda a, b: float(np.linalg.norm(centres[a] - centres[b]))  # noqa: E731
    found = []
    for name in sorted(centres):
        others = [other for other in sorted(centres) if other != name]
        best = min(
            combinations(others, 2),
            key=lambda two: (far(two[0], name) + far(name, two[1])) / far(*two),
        )
        found.append(Middle(name, best, (far(best[0], name) + far(name, best[1])) / far(*best)))
    return sorted(found, key=lambda middle: middle.detour)[:N_MIDDLES]


def drawn(profiles: np.ndarray, task: Task) -> sparse.csr_matrix:
    """Draw Poisson counts from profiles, with the totals of the task."""
    shares = profiles / profiles.sum(axis=1, keepdims=True)
    return sparse.csr_matrix(task.rng.poisson(shares * task.totals[:, None]).astype(np.float32))


def from_means(task: Task) -> sparse.csr_matrix:
    """Mix the mean profiles of both clusters."""
    profiles = task.seen.X.toarray() / np.asarray(task.seen.X.sum(axis=1))
    first, last = (profiles[np.unique(cells)].mean(axis=0) for cells in task.pairs.T)
    shares = task.shares.ravel()[:, None]
    return drawn((1 - shares) * first + shares * last, task)


def from_neighbours(task: Task) -> sparse.csr_matrix:
    """Use the mean profile of measured cells near the straight path in principal components."""
    profiles = task.seen.X.toarray() / np.asarray(task.seen.X.sum(axis=1))
    places = PCA(N_COMPONENTS, random_state=0).fit_transform(logs(task.seen.X))
    shares = task.shares[..., None]
    ways = (1 - shares) * places[task.pairs[:, :1]] + shares * places[task.pairs[:, 1:]]
    near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(places)
    found = near.kneighbors(ways.reshape(-1, N_COMPONENTS), return_distance=False)
    return drawn(profiles[found].mean(axis=1), task)


def at_shares(way: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the points of an evenly spaced path at some shares of its length."""
    at = np.linspace(0, 1, len(way))
    return np.column_stack([np.interp(shares, at, column) for column in way.T])


def ways_of(model: BetaVI, task: Task, path: str) -> np.ndarray:
    """Return latent positions on paths of BetaVI, ``(n_cells, n_latent)``."""
    z = model.get_latent_representation().astype(np.float64)
    density, lengths, points = model.latent_density(), decoded_lengths(model, z), []
    for (start, end), shares in zip(task.pairs, task.shares, strict=True):
        if path == "straight":
            way = straight(z[start], z[end], N_STEPS)
        elif path == "density":
            way = along_density(z[start], z[end], N_STEPS, density, z)
        else:
            way = resampled(z[shortest(lengths, start, end)], N_STEPS)
        points.append(at_shares(way, shares))
    return np.vstack(points)


def decoded_lengths(model: BetaVI, z: np.ndarray) -> sparse.csr_array:
    """Return distances between neighbouring cells in the Fisher metric of the expected shares."""
    root = np.sqrt(model.get_normalized_expression(return_numpy=True))
    edges = sparse.coo_array(kneighbors_graph(z, NEIGHBOURS))
    length = np.linalg.norm(root[edges.row] - root[edges.col], axis=1)
    return sparse.csr_array((length, (edges.row, edges.col)), shape=edges.shape)


def shortest(lengths: sparse.csr_array, start: int, end: int) -> list[int]:
    """Return the cells on the shortest path, or both ends if they are not connected."""
    before = dijkstra(lengths, directed=False, indices=start, return_predecessors=True)[1]
    route = [end]
    while before[route[-1]] >= 0:
        route.append(int(before[route[-1]]))
    return route[::-1] if route[-1] == start else [start, end]


@torch.inference_mode()
def of_decoder(module: Any, z: np.ndarray, task: Task) -> sparse.csr_matrix:
    """Draw counts around a decoder's mean at some positions, with Poisson noise for all methods."""
    codes = torch.zeros(len(z), 1, dtype=torch.long)
    size = torch.as_tensor(np.log(task.totals), dtype=torch.float32)[:, None]
    px = module.generative(torch.as_tensor(z, dtype=torch.float32), size, codes)["px"]
    return drawn(np.maximum(px.mean.numpy().astype(np.float64), 1e-12), task)


def trained(cls: type, seen: AnnData, seed: int) -> Any:
    scvi.settings.seed = seed
    cls.setup_anndata(seen)
    model = cls(seen)
    model.train(accelerator="cpu", enable_progress_bar=False)
    model.module.eval()
    return model


def task_of(adata: AnnData, middle: Middle, seed: int) -> Task:
    rng = np.random.default_rng(seed)
    clusters = adata.obs["clusters"].astype(str)
    seen = adata[(clusters != middle.name).to_numpy()].copy()
    known = seen.obs["clusters"].astype(str).to_numpy()
    pairs = np.column_stack(
        [rng.choice(np.flatnonzero(known == name), N_PAIRS) for name in middle.ends]
    )
    sizes = np.asarray(seen.X.sum(axis=1)).ravel()
    totals = sizes[rng.choice(pairs.ravel(), N_PAIRS * PER_PAIR)]
    return Task(seen, pairs, rng.uniform(FIRST, LAST, (N_PAIRS, PER_PAIR)), totals, rng)


def compare(adata: AnnData, middle: Middle, seed: int) -> dict[str, tuple[float, float]]:
    """Return the energy distance to the real cells and the correlation of fold changes, by method."""
    task = task_of(adata, middle, seed)
    ours, theirs = trained(BetaVI, task.seen, seed), trained(scvi.model.SCVI, task.seen, seed)
    z = theirs.get_latent_representation()
    shares = task.shares[..., None]
    line = (1 - shares) * z[task.pairs[:, :1]] + shares * z[task.pairs[:, 1:]]
    torch.manual_seed(seed)
    found = {
        f"BetaVI, {path}": of_decoder(ours.module, ways_of(ours, task, path), task)
        for path in ("density", "straight", "geodesic")
    } | {
        "SCVI, straight": of_decoder(theirs.module, line.reshape(-1, z.shape[1]), task),
        "means": from_means(task),
        "kNN": from_neighbours(task),
    }
    real = adata.X[(adata.obs["clusters"].astype(str) == middle.name).to_numpy()]
    # the components are fitted to a third of the cells that is not compared with any other
    aside, judges, ceiling = np.array_split(task.rng.permutation(real.shape[0]), 3)
    found["other real cells"] = real[ceiling]
    others = task.seen.X
    space = PCA(N_COMPONENTS, random_state=0).fit(logs(sparse.vstack([others, real[aside]])))

    def change(counts: Any) -> np.ndarray:
        both = sparse.vstack([counts, others]).tocsr()
        return log_fold_changes(both, np.arange(both.shape[0]) < counts.shape[0])

    target, expected = space.transform(logs(real[judges])), change(real[judges])
    return {
        name: (
            energy_distance(space.transform(logs(counts)), target),
            float(np.corrcoef(change(counts), expected)[0, 1]),
        )
        for name, counts in found.items()
    }


def main(*seeds: str) -> None:
    quietly()
    adata = REAL["pancreas"].read()
    rows = []
    for seed in map(int, seeds or ("0", "1")):
        for middle in middles(adata):
            between = f"{middle.name} between {middle.ends[0]} and {middle.ends[1]}"
            for method, scores in compare(adata, middle, seed).items():
                rows.append((between, seed, method, *scores))
                print(*rows[-1][:3], *(f"{score:.3f}" for score in scores), sep="\t", flush=True)
    table = pd.DataFrame(rows, columns=["cluster", "seed", "method", "energy", "r of fold changes"])
    columns = ["energy", "r of fold changes"]
    for what in ("median", "min", "max"):
        over = table.pivot_table(columns, "method", "cluster", aggfunc=what, sort=False)
        print(f"\n{what} over seeds\n{over.round(3).to_string()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
