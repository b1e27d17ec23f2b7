"""Generated cells: positions, library sizes given these, and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.utils import track

from betavi.model.core.beta import takes_beta
from betavi.model.core.covariates import batch_codes
from betavi.model.core.density import CELLS_AT_ONCE, decoder_input
from betavi.model.core.library_size import drawn_log_sizes
from betavi.model.generation.request import DEFAULT, expected_totals, validated
from betavi.model.io.appendable import Grown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.model.core.latent_model import LatentModel, Tensors
    from betavi.model.generation.request import GenerationRequest
    from betavi.model.generation.sources import Place

    Chunk = tuple[dict[str, sparse.csr_matrix], pd.DataFrame, np.ndarray]

SMALLEST_TOTAL = 1e-12
"""Smallest expected total that is divided by."""


@takes_beta
def generate(
    model: LatentModel,
    n_cells: int | None = None,
    batch: str | int | None = None,
    source: str = DEFAULT,
    cells: Any = None,
    latent: np.ndarray | None = None,
    library_size: float | np.ndarray | Mapping[str, float | np.ndarray] | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    show_progress: bool = True,
) -> AnnOrMuData | None:
    """Draw new cells: latent positions, library sizes, and counts of every modality.

    Parameters
    ----------
    n_cells
        Number of cells; if None, the number of ``cells`` or positions.
    batch
        Batch to decode all cells in. Covariates, labels and sizes are those of near cells of this
        batch; positions are drawn from those of all batches. ``source="cells"`` draws around cells of
        this batch, unless ``cells`` are named. If None, a cell takes the batch and the other
        covariates of a near cell.
    source
        Source of the positions. ``"prior"``: the prior. ``"aggregate"``: the density fitted to the
        positions of cells, see :meth:`latent_density`, which avoids the holes between them and does
        not repeat the same cells. ``"cells"``: posteriors of measured cells.
    cells
        Names, positions or a mask of the cells to draw around, with ``source="cells"``.
    latent
        Latent positions in place of a source, ``(n, n_latent)``, used in turn.
    library_size
        Expected total of every cell, or of each, ``(n_cells,)``; of a joint model by modality. For
        ``"bernoulli"`` it is the sequencing depth. If None, :class:`betavi.BetaVI` takes the size of
        a near cell and :class:`betavi.JointVI` draws sizes given the position. A ``"normal"``
        likelihood has larger totals, because negative draws are set to 0.
    seed
        Seed of the draws; ``scvi.settings.seed`` if None. Torch's generator is left as it was.
    out
        File to write minibatch by minibatch: ``.h5ad`` or ``.zarr``, of a joint model ``.h5mu`` or
        ``.zarr``.
    show_progress
        Show a progress bar.

    Returns
    -------
    Object with counts in ``X``, CSR; None if a file was written. ``obs`` has the columns that the
    model was set up with, so that the model can read the object. Covariates and labels are those of
    ``near_cell``: one of the fifteen nearest measured cells, or the cell drawn around. A size factor
    is the one that was decoded. ``obsm["z"]`` has the positions, of a logistic normal those before
    the softmax.

    Raises
    ------
    ValueError
        If the number of cells, source, batch, seed, positions or sizes are invalid, the batch has no
        cells, a size is given for a modality that reads none, or a deterministic autoencoder is
        asked for its prior.
    KeyError, IndexError
        If a cell does not exist.
    FileExistsError
        If ``out`` exists.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> new = model.generate(50, source="aggregate", library_size=500, show_progress=False)
    >>> new.shape, new.obs.columns.tolist()
    ((50, 20), ['near_cell', 'batch'])
    """
    totals = expected_totals(model, library_size)
    model._validate_anndata(None)
    request = validated(model, n_cells, batch, source, cells, latent, seed, totals, show_progress)
    # the only place that knows how cells are collected
    grown = Grown(_no_cells(model, request), out)
    chunks = _chunks(model, request, request.source(model, request))
    with model.seeded(request.seed), torch.inference_mode(), grown:
        for counts, obs, z in chunks:
            grown.add(dict(zip(grown.assays, counts.values(), strict=True)), obs, z)
    found: AnnOrMuData | None = grown.whole()
    return found


def _chunks(model: LatentModel, request: GenerationRequest, place: Place) -> Iterator[Chunk]:
    """Yield new cells, some at a time: counts by modality, columns of ``obs``, and positions."""
    (code,) = batch_codes(model.adata_manager, request.batch)
    starts = range(0, request.n_cells, CELLS_AT_ONCE)
    for start in track(starts, description="Generating", disable=not request.show_progress):
        block = slice(start, min(start + CELLS_AT_ONCE, request.n_cells))
        positions, near, tensors = place(block)
        if code is not None:
            batch = torch.full_like(tensors[REGISTRY_KEYS.BATCH_KEY], code)
            tensors = tensors | {REGISTRY_KEYS.BATCH_KEY: batch}
        z = decoder_input(model, positions)
        counts, obs = {}, _obs(model, request, near)
        for name in model.modalities:
            total = request.totals.get(name)
            counts[name], size = _draw_counts(
                model, name, z, tensors, None if total is None else total[block]
            )
            if (key := model.registry_["setup_args"].get("size_factor_key")) is not None:
                obs[key] = size
        yield counts, obs, positions.astype(np.float32)


def _draw_counts(
    model: LatentModel, name: str, z: Tensor, tensors: Tensors, total: np.ndarray | None
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Draw counts of a modality at z; return also the sizes that were decoded, ``(n_cells,)``."""
    likelihood = model.likelihood(name)
    log_size = drawn_log_sizes(model, z, tensors, name)
    if likelihood.reads_size and (total is not None or not model.module.options.given_size):
        wanted = log_size if total is None else torch.as_tensor(total).to(log_size).log()
        if likelihood.is_of_counts:
            # a zero-inflated likelihood reads the size of a cell without its dropouts
            px = model.decode(z, tensors, name, log_size)
            expected = likelihood.expected(px).sum(dim=-1, keepdim=True).clamp_min(SMALLEST_TOTAL)
            wanted = log_size + wanted - expected.log()
        log_size = wanted
    drawn: Any = model.decode(z, tensors, name, log_size).sample()
    # a normal distribution of counts draws negative ones
    drawn = drawn.clamp_min(0) if likelihood.is_of_counts else drawn
    return sparse.csr_matrix(drawn.cpu().numpy()), log_size.exp().cpu().numpy().ravel()


def _obs(model: LatentModel, request: GenerationRequest, near: np.ndarray) -> pd.DataFrame:
    """Return the registered columns of near cells, and the batch of the request."""
    args = model.registry_["setup_args"]
    obs = pd.DataFrame({"near_cell": model.adata.obs_names[near].to_numpy()})
    columns = [args.get(word) for word in ("batch_key", "labels_key", "size_factor_key")]
    for word in ("categorical_covariate_keys", "continuous_covariate_keys"):
        columns += args[word] or []
    for column in filter(None, columns):
        obs[column] = model.adata.obs[column].iloc[near].to_numpy()
    if request.batch is not None and args["batch_key"] is not None:
        obs[args["batch_key"]] = request.batch
    return obs


def _no_cells(model: LatentModel, request: GenerationRequest) -> AnnOrMuData:
    """Return an object without cells: its features, the registered layers, and the source."""
    args, parts = model.registry_["setup_args"], {}
    for name in model.modalities:
        features, layer = model.features(name), model.adapter.layer(args, name)
        counts = sparse.csr_matrix((0, len(features)), dtype=np.float32)
        layers = {} if layer is None else {layer: counts.copy()}
        parts[name] = AnnData(counts, var=pd.DataFrame(index=features), layers=layers)
    empty: AnnOrMuData = model.adapter.together(parts)
    record = {"source": request.name} | ({} if request.seed is None else {"seed": request.seed})
    empty.uns["betavi"] = {"generated": record}
    return empty
