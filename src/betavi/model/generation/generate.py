"""Generation of cells: positions, library sizes given the positions, and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.utils import track

from betavi import _blocks
from betavi.data.conditions import CONDITION_FIELDS
from betavi.model.core.beta import takes_beta
from betavi.model.core.covariates import batch_codes
from betavi.model.core.density import decoder_input
from betavi.model.core.library_size import drawn_log_sizes
from betavi.model.generation.request import DEFAULT_SOURCE, expected_totals, validated
from betavi.model.io.writer import CellChunk, collect, new_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.model.core.latent_model import LatentModel, Tensors
    from betavi.model.generation.request import GenerationRequest
    from betavi.model.generation.sources import Sampler

SMALLEST_TOTAL = 1e-12
"""Smallest expected total in a division."""


@takes_beta
def generate(
    model: LatentModel,
    n_cells: int | None = None,
    batch: str | int | None = None,
    source: str = DEFAULT_SOURCE,
    cells: Any = None,
    latent: np.ndarray | None = None,
    library_size: float | np.ndarray | Mapping[str, float | np.ndarray] | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    show_progress: bool = True,
) -> AnnOrMuData | None:
    """Generate cells: latent positions, library sizes, and counts of every modality.

    Parameters
    ----------
    n_cells
        Number of cells. If None, the number of ``cells`` or positions.
    batch
        Batch to decode all cells in. A generated cell takes covariates, label and size from a near
        measured cell of this batch. Positions are drawn from all batches, except with
        ``source="cells"``: without ``cells``, they are then drawn around cells of this batch. If
        None, a generated cell has the batch of its near cell.
    source
        Source of the positions. ``"prior"`` is the prior. ``"aggregate"`` is the density fitted to
        the positions of cells, see :meth:`latent_density`. This density avoids the holes between
        cells, and does not repeat cells. ``"cells"`` draws from posteriors of measured cells.
    cells
        Only with ``source="cells"``: names, positions or a mask of the cells to draw around.
    latent
        Latent positions in place of a source, ``(n, n_latent)``, used in turn.
    library_size
        Expected total count: one number, or one number per cell, ``(n_cells,)``. For a joint model,
        a dictionary by modality. For ``"bernoulli"``, the sequencing depth. If None,
        :class:`betavi.BetaVI` uses the size of a near cell, and :class:`betavi.JointVI` draws sizes
        given the position. With a ``"normal"`` likelihood, totals are larger than requested,
        because negative values are set to 0.
    seed
        Seed of the random numbers. If None, ``scvi.settings.seed``. PyTorch's generator is not
        changed.
    out
        File to write by minibatches: ``.zarr`` or ``.h5ad``. For a joint model, ``.zarr`` or
        ``.h5mu``.
    show_progress
        Show a progress bar.

    Returns
    -------
    Object with counts in ``X``, CSR. Images are in ``obsm``, as in the model's object. None if a file was written. ``obs`` has the registered
    columns, so the model can read the object. Covariates and labels are those of ``near_cell``: one
    of the 15 nearest measured cells or, with ``source="cells"``, the cell that was drawn around. A
    size factor is the size at which the cell was decoded. ``obsm["z"]`` has the positions. For a
    logistic normal z, these are positions before the softmax.

    Raises
    ------
    ValueError
        If the number of cells, source, batch, seed, positions or sizes are invalid, the batch has
        no cells, a size is given for a modality without a library size, or ``source`` is the prior
        and the model is a deterministic autoencoder.
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
    if out is not None:
        remedy = "Leave `out` out, so that the cells are returned, and write them yourself."
        model.refuse_images("generate(out=...)", remedy)
    totals = expected_totals(model, library_size)
    model._validate_anndata(None)
    request = validated(model, n_cells, batch, source, cells, latent, seed, totals, show_progress)
    empty = _empty_object(model, request)
    writer = None if out is None else new_file(empty, out)
    chunks = _chunks(model, request, request.source(model, request))
    with model.seeded(request.seed), torch.inference_mode():
        return collect(empty, chunks, writer)


def _chunks(model: LatentModel, request: GenerationRequest, sample: Sampler) -> Iterator[CellChunk]:
    """Yield chunks of new cells: counts by modality, columns of ``obs``, and positions."""
    (code,) = batch_codes(model.adata_manager, request.batch)
    size = _blocks.ENCODED_CELLS
    starts = range(0, request.n_cells, size)
    for start in track(starts, description="Generating", disable=not request.show_progress):
        block = slice(start, min(start + size, request.n_cells))
        positions, near, tensors = sample(block)
        if code is not None:
            batch = torch.full_like(tensors[REGISTRY_KEYS.BATCH_KEY], code)
            tensors = tensors | {REGISTRY_KEYS.BATCH_KEY: batch}
        z = decoder_input(model, positions)
        counts, obs = {}, _obs(model, request, near)
        for name in model.modalities:
            total = request.totals.get(name)
            total = None if total is None else total[block]
            counts[name], sizes = _draw_counts(model, name, z, tensors, total)
            if (key := model.registry_["setup_args"].get("size_factor_key")) is not None:
                obs[key] = sizes
        yield CellChunk(counts, obs, positions.astype(np.float32))


def _draw_counts(
    model: LatentModel, name: str, z: Tensor, tensors: Tensors, total: np.ndarray | None
) -> tuple[Any, np.ndarray]:
    """Draw counts of a modality at z. Also returns the decoded sizes, ``(n_cells,)``."""
    likelihood = model.likelihood(name)
    log_size = drawn_log_sizes(model, z, tensors, name)
    if likelihood.reads_size and (total is not None or not model.module.options.given_size):
        target = log_size if total is None else torch.as_tensor(total).to(log_size).log()
        if likelihood.is_of_counts:
            # a zero-inflated likelihood reads the size before dropouts, which lower the total
            px = model.decode(z, tensors, name, log_size)
            expected = likelihood.expected(px).sum(dim=-1, keepdim=True).clamp_min(SMALLEST_TOTAL)
            target = log_size + target - expected.log()
        log_size = target
    drawn: Any = model.decode(z, tensors, name, log_size).sample()
    # a normal likelihood of counts draws negative values
    drawn = drawn.clamp_min(0) if likelihood.is_of_counts else drawn
    values = drawn.cpu().numpy()
    counts = values if likelihood.of_images else sparse.csr_matrix(values)
    return counts, log_size.exp().cpu().numpy().ravel()


def _obs(model: LatentModel, request: GenerationRequest, near: np.ndarray) -> pd.DataFrame:
    """Return the registered columns of near cells, with the requested batch."""
    args = model.registry_["setup_args"]
    obs = pd.DataFrame({"near_cell": model.adata.obs_names[near].to_numpy()})
    columns = [args.get(key) for key in ("batch_key", "labels_key", "size_factor_key")]
    for key in ("categorical_covariate_keys", "continuous_covariate_keys"):
        columns += args[key] or []
    columns += [args.get(argument) for argument in CONDITION_FIELDS.values()]
    for column in filter(None, columns):
        obs[column] = model.adata.obs[column].iloc[near].to_numpy()
    if request.batch is not None and args["batch_key"] is not None:
        obs[args["batch_key"]] = request.batch
    return obs


def _empty_object(model: LatentModel, request: GenerationRequest) -> AnnOrMuData:
    """Return an object without cells: features, registered layers, and the source in ``uns``."""
    args, parts = model.registry_["setup_args"], {}
    for name in model.modalities:
        if (image := model.image_format(name)) is not None:
            nobody = pd.DataFrame(index=pd.Index([], dtype=str))
            parts[name] = model.as_images(name, nobody, images=np.zeros((0, image.n_pixels)))
            continue
        features, layer = model.features(name), model.adapter.layer(args, name)
        counts = sparse.csr_matrix((0, len(features)), dtype=np.float32)
        layers = {} if layer is None else {layer: counts.copy()}
        parts[name] = AnnData(counts, var=pd.DataFrame(index=features), layers=layers)
    empty = model.adapter.together(parts)
    record = {"source": request.name} | ({} if request.seed is None else {"seed": request.seed})
    empty.uns["betavi"] = {"generated": record}
    return empty
