"""Denoising of counts into an object or a file."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from scvi import settings

from betavi.data import MOVED_COUNTS
from betavi.model.core.beta import takes_beta
from betavi.model.denoising.destination import (
    COUNTS_LAYER,
    Destination,
    columns_of_user,
    refuse_view_of_file,
    restored_on_failure,
)
from betavi.model.denoising.estimate import (
    DenoiseOptions,
    cells_with,
    estimates,
    validated_options,
)
from betavi.model.denoising.image_destination import ImageDestination
from betavi.model.denoising.storage_format import StorageFormat
from betavi.model.io.shared_writer import SharedWriter, from_first, join_processes
from betavi.model.io.writer import changed_file, new_file
from betavi.model.setup.messages import inform
from betavi.model.setup.registered import untouched_on_failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel
    from betavi.model.io.writer import Writer


@takes_beta
@torch.inference_mode()
def denoise(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    layer_added: str | None = "denoised",
    std_layer_added: str | None = None,
    estimate: str = "posterior",
    gene_list: Sequence[str] | None = None,
    transform_batch: str | Sequence[str] | None = None,
    library_size: float | str = "observed",
    n_samples: int = 1,
    batch_size: int | None = None,
    out: str | Path | None = None,
    dtype: str = "float32",
    drop_below: float | None = None,
    show_progress: bool = True,
    modalities: Sequence[str] | str | None = None,
    in_processes: bool = False,
) -> None:
    """Write denoised values, the expected counts without counting noise, into an object or a file.

    With several modalities, a cell's latent position is inferred from all modalities of the cell. A
    modality is denoised only in the cells that have it. For other cells, use ``translate``. For
    proteins, values include the background. For ``"bernoulli"``, values are probabilities. Images are
    written to ``obsm`` in their own shape. They are the decoder's mean image, without camera noise and
    without details that z does not hold.

    Parameters
    ----------
    adata
        Object to denoise. If None, the model's own object. A view is copied.
    layer_added
        Layer to write. If None, the values replace ``X``, and the counts are moved from ``X`` to
        ``layers["counts"]``. All models, also loaded models, then read the counts from this layer.
    std_layer_added
        Layer for standard deviations. They include the uncertainty of the expected count given z,
        and the differences between posterior samples of z.
    estimate
        ``"posterior"`` or ``"mean"``. ``"posterior"`` is the expected count in a second measurement
        of the same cell, given z and the observed count. ``"mean"`` is the expected count given z
        alone, which is the expected count of similar cells.
    gene_list
        Features of a single modality, written as a data frame to ``obsm[layer_added]``.
    transform_batch
        Batch to decode cells in, or several batches to average over. The estimate is then
        ``"mean"``.
    library_size
        ``"observed"``, the observed library size of each cell; ``"latent"``, the inferred library
        size of each cell; or a number for all cells.
    n_samples
        Number of posterior samples. With 1, the posterior mean is used.
    batch_size
        Number of cells per minibatch. If None, scvi-tools' default.
    out
        File to write by minibatches: ``"x.zarr"``; ``"x.h5ad"`` for an AnnData; or ``"x.h5mu"`` for
        a MuData. The file has ``obs``, ``var`` and the denoised values. With ``layer_added=None``,
        the file also has the counts. Once complete, the new file replaces an existing file. If None
        and the object is backed (``"r+"``), its own file is replaced in the same way.
    dtype
        ``"float32"`` or ``"float16"``.
    drop_below
        Smallest value to store. Values are then stored in a sparse matrix, and standard deviations
        at the same entries. The share of the sum of all values that is dropped is logged, and
        stored in ``uns["betavi"]["denoised"]``. If None, all values are stored.
    show_progress
        Show a progress bar.
    modalities
        Modalities to denoise. If None, all modalities.
    in_processes
        Divide the cells between the processes that ``torchrun`` started. Each process calls
        ``denoise`` with the same model and the same arguments, and writes its cells to ``out``, a
        zarr store. The values are those of a single process.

    Raises
    ------
    KeyError
        If a gene is unknown.
    TypeError
        If ``gene_list`` is a single name.
    ValueError
        If an argument is invalid, a modality or a batch is unknown, ``gene_list`` is given for
        several modalities, the object is minified or a view of a file, or a value is too large for
        ``dtype``. Also if ``layers["counts"]`` exists and counts would be moved there, or if a
        layer to write holds whole numbers that ``denoise`` did not write, because they may be
        counts. The object is unchanged.
    FileNotFoundError, FileExistsError
        If the folder of ``out`` does not exist, or ``out`` exists and has another format.

    References
    ----------
    Huang et al. (2018), SAVER, for the posterior of an expected count. Lopez et al. (2018), scVI.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.denoise(std_layer_added="denoised_std", show_progress=False)
    >>> adata.layers["denoised"].shape, bool((adata.layers["denoised_std"] > 0).all())
    ((100, 20), True)
    """
    model.refuse_minified("denoise")
    genes, names = _distinct(gene_list), model.named_modalities(modalities)
    if genes is not None and len(names) > 1:
        raise ValueError(
            f"`gene_list` needs a single modality, but {len(names)} modalities would be denoised. "
            "Name one modality: modalities=..."
        )
    refuse_view_of_file(adata)
    if in_processes:
        _check_shared(out, layer_added, drop_below)
        join_processes()
    options = DenoiseOptions(
        estimate, n_samples, library_size, transform_batch, batch_size, show_progress
    )
    # registration writes into the object, which a failed call must undo too
    with untouched_on_failure(model.adata if adata is None else adata):
        adata = model._validate_anndata(adata)
        options = validated_options(model, adata, names, options)
        layers = layer_added, std_layer_added
        destinations = [
            _destination(model, adata, name, *layers, StorageFormat(dtype, drop_below), genes)
            for name in names
        ]
        for one in destinations:
            one.check(out)
        with _opened(model, adata, destinations, options, out, in_processes) as writer:
            seed = int(torch.randint(2**31, ()))
            seed = from_first(seed) if in_processes else seed
            for one in destinations:
                share = slice(None)
                if isinstance(writer, SharedWriter):
                    share = writer.share(one.prefix, len(cells_with(model, adata, one.name)))
                for part in estimates(model, adata, one.name, options, seed, one.features, share):
                    one.add(*part, writer)
    for one in destinations:
        if drop_below is not None:
            inform(
                f"Dropped values of {one.name} below {drop_below:g}: "
                f"{one.storage_format.dropped_share:.2%} of the sum of all values."
            )


def _check_shared(out: str | Path | None, layer: str | None, drop_below: float | None) -> None:
    """Raise a ValueError if several processes cannot write one file together."""
    if out is None or Path(out).suffix != ".zarr":
        raise ValueError(
            f"With in_processes=True, `out` must be a zarr store, e.g. 'denoised.zarr', not {out!r}."
        )
    if layer is None or drop_below is not None:
        word = "layer_added=None" if layer is None else "`drop_below`"
        raise ValueError(
            f"{word} writes sparse matrices, which several processes cannot write together. Leave "
            f"it out, or leave `in_processes` out."
        )


def _distinct(gene_list: Iterable[str] | None) -> list[str] | None:
    """Return the names in any kind of list. Refuses an empty list and repeated names."""
    if gene_list is None:
        return None
    genes = list(gene_list)
    if not genes:
        raise ValueError("`gene_list` is empty. To denoise all genes, leave `gene_list` out.")
    gene, times = Counter(genes).most_common(1)[0]
    if times > 1:
        raise ValueError(f"`gene_list` has the gene {gene!r} {times} times. Names must be unique.")
    return genes


def _destination(
    model: LatentModel, adata: AnnOrMuData, name: str, *how: Any
) -> Destination | ImageDestination:
    part, setup_args = model.adapter.part(adata, name), model.manager(adata).registry["setup_args"]
    prefix = "" if part is adata else f"mod/{name}/"
    if (image := model.image_format(name)) is not None:
        key = model.adapter.image_key(setup_args, name)
        return ImageDestination(name, part, prefix, image, str(key), *how)
    counts = model.adapter.counts_layer(adata, setup_args, name)
    return Destination(name, part, prefix, counts, *how)


@contextmanager
def _opened(
    model: LatentModel,
    adata: AnnOrMuData,
    destinations: list[Any],
    options: DenoiseOptions,
    out: str | Path | None,
    in_processes: bool,
) -> Iterator[Writer | None]:
    """Open the output file, if there is one.

    At the end, complete the file, or write into the object.
    """
    first = destinations[0]
    if out is not None:
        parts = {one.name: one.template() for one in destinations}
        template = model.adapter.together(parts, columns_of_user(adata.obs))
        whole = new_file(template, out, replaces=True)
        chunk = options.batch_size or settings.batch_size
        with SharedWriter(whole, chunk) if in_processes else whole as writer:
            yield writer
            for one in destinations:
                moved = {MOVED_COUNTS: COUNTS_LAYER} if one.layer is None else {}
                writer.add_record(one.prefix, one.record(options) | moved)
    elif first.adata.isbacked and first.genes is None:
        with _own_file(first, options) as writer:
            yield writer
    else:
        yield None
        with restored_on_failure([one.adata for one in destinations]):
            for one in destinations:
                one.put(one.record(options))


@contextmanager
def _own_file(one: Destination, options: DenoiseOptions) -> Iterator[Writer]:
    """Open a writer that replaces the file that backs an object."""
    own = Path(one.adata.filename).resolve()
    before = own.stat().st_ino
    try:
        layers = [one.key(layer) for layer in (one.layer, one.std_layer) if layer is not None]
        with changed_file(one.adata, layers) as writer:
            yield writer
            writer.add_record("", one.record(options))
    finally:
        # even after an error, the object must not read a file that was replaced
        if own.stat().st_ino != before:
            one.reopen(one.record(options))
