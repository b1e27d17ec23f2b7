"""Generation of cells of a cluster that was left out of training, compared with the real cells.

A cluster between two others is left out of training. Pairs of cells from both neighbouring clusters
are connected, and cells are generated in the middle half of the path: along straight paths, density
paths and decoder geodesics of BetaVI, along straight paths of SCVI, from the mean profiles, and
from the nearest measured cells. Measured cells of both ends show what no path reaches, and the
positions of the left-out cells show what the decoder could reach.
``python -m benchmarks.missing_middle [use] [data] [cluster=name] [seed ...]`` tests on clusters of the pancreas
and mixtures of RNA, and prints the clusters that served the choice of the path apart. A use is ``test`` or
``choice``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scvi
import torch
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from benchmarks.middles import N_COMPONENTS, Case, Middle, cases, logs
from benchmarks.peers import quietly
from betavi import BetaVI
from betavi.diagnostics import along_density, straight
from betavi.diagnostics.paths import resampled
from betavi.metrics import energy_distance, log_fold_changes
from betavi.module import BetaVAE

if TYPE_CHECKING:
    from anndata import AnnData

N_PAIRS, PER_PAIR = 60, 5
FIRST, LAST = 0.25, 0.75
"""Shares of a path between which cells are generated."""

NEIGHBOURS, N_STEPS = 15, 33


class Task(NamedTuple):
    """Input of all methods: cells of other clusters, pairs of cells, shares of paths, totals, seed."""

    seen: AnnData
    pairs: np.ndarray
    shares: np.ndarray
    totals: np.ndarray
    seed: int


def drawn(profiles: np.ndarray, task: Task) -> sparse.csr_matrix:
    """Draw Poisson counts from profiles, with the totals of the task."""
    shares = profiles / profiles.sum(axis=1, keepdims=True)
    rng = np.random.default_rng(task.seed)  # of its own, so that no method changes another
    return sparse.csr_matrix(rng.poisson(shares * task.totals[:, None]).astype(np.float32))


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
    is_ours = isinstance(module, BetaVAE)
    library = {"X": size} if is_ours else size
    px = module.generative(torch.as_tensor(z, dtype=torch.float32), library, codes)["px"]
    px = px["X"] if is_ours else px
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
    return Task(seen, pairs, rng.uniform(FIRST, LAST, (N_PAIRS, PER_PAIR)), totals, seed)


def generated(case: Case, task: Task, seed: int) -> dict[str, Any]:
    """Return counts of generated and measured cells by method. SCVI is trained for tests only."""
    ours = trained(BetaVI, task.seen, seed)
    torch.manual_seed(seed)
    found = {
        f"BetaVI, {path}": of_decoder(ours.module, ways_of(ours, task, path), task)
        for path in ("density", "straight", "geodesic")
    }
    if case.use == "test":
        found["SCVI, straight"] = from_scvi(trained(scvi.model.SCVI, task.seen, seed), task)
    found |= {"means": from_means(task), "kNN": from_neighbours(task)}
    for end, cells in zip(("first", "second"), task.pairs.T, strict=True):
        found[f"cells of the {end} end"] = task.seen.X[cells]
    clusters = case.adata.obs["clusters"].astype(str)
    hidden = case.adata[(clusters == case.middle.name).to_numpy()].copy()
    z = ours.get_latent_representation(hidden)
    z = z[np.random.default_rng(seed).integers(len(z), size=N_PAIRS * PER_PAIR)]
    return found | {"BetaVI, encoded left-out cells": of_decoder(ours.module, z, task)}


def from_scvi(model: Any, task: Task) -> sparse.csr_matrix:
    """Decode straight paths of SCVI."""
    z, shares = model.get_latent_representation(), task.shares[..., None]
    line = (1 - shares) * z[task.pairs[:, :1]] + shares * z[task.pairs[:, 1:]]
    return of_decoder(model.module, line.reshape(-1, z.shape[1]), task)


def compare(case: Case, seed: int) -> dict[str, tuple[float, float]]:
    """Return the energy distance to the real cells and the correlation of fold changes, by method."""
    adata, middle = case.adata, case.middle
    task = task_of(adata, middle, seed)
    found = generated(case, task, seed)
    real = adata.X[(adata.obs["clusters"].astype(str) == middle.name).to_numpy()]
    # the components are fitted to a third of the cells that is not compared with any other
    aside, judges, ceiling = np.array_split(
        np.random.default_rng(seed).permutation(real.shape[0]), 3
    )
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


def report(table: pd.DataFrame) -> None:
    """Print the median, minimum and maximum over seeds, for test and choice apart."""
    for use, part in table.groupby("use", sort=False):
        for score in ("energy", "r of fold changes"):
            for what in ("median", "min", "max"):
                over = part.pivot_table(score, "method", ["data", "cluster"], what, sort=False)
                print(f"\n{use}: {what} of {score} over seeds\n{over.round(2).to_string()}")


def main(*words: str) -> None:
    quietly()
    rows, seeds = [], [word for word in words if word.isdigit()]
    chosen = {word for word in words if not word.isdigit()}
    for case in cases():
        if not chosen <= {case.use, case.data, f"cluster={case.middle.name}"}:
            continue
        name, ends, detour, share = case.middle
        between = f"{name} between {ends[0]} and {ends[1]}"
        print(f"{case.use}\t{case.data}\t{between}\tdetour {detour:.2f}\tshare {share:.2f}")
        for seed in map(int, seeds or ("0", "1", "2")):
            for method, scores in compare(case, seed).items():
                rows.append((case.use, case.data, name, seed, method, *scores))
                print(*rows[-1][1:5], *(f"{score:.3f}" for score in scores), sep="\t", flush=True)
    columns = ["use", "data", "cluster", "seed", "method", "energy", "r of fold changes"]
    report(pd.DataFrame(rows, columns=columns))


if __name__ == "__main__":
    main(*sys.argv[1:])
