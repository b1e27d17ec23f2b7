"""Denoising of counts, into an object or into a file."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from betavi.data import MOVED_COUNTS
from betavi.model.core.beta import takes_beta
from betavi.model.denoising.destination import (
    COUNTS_LAYER,
    Destination,
    columns_of_user,
    layers_as_before,
    refuse_view_of_file,
)
from betavi.model.denoising.estimate import DenoiseOptions, checked, estimates
from betavi.model.denoising.storage_format import StorageFormat
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
) -> None:
    """Write expected counts, without the noise of counting, into an object or a file.

    With several modalities, positions are inferred from everything that a cell has, and only cells
    that have a modality are denoised in it: for the others there is ``translate``. Of proteins the
    background is part of what is expected, and of ``"bernoulli"`` the values are probabilities.

    Parameters
    ----------
    adata
        The object; the model's own if None. A view becomes an object of its own.
    layer_added
        Layer to write. If None, ``X`` is replaced, and counts that were there are kept in
        ``layers["counts"]``, where models find them from then on, also loaded ones.
    std_layer_added
        Layer for standard deviations: of the posterior rate, and between draws of z.
    estimate
        ``"posterior"``, what a second measurement of the same cell would expect given z and
        what the first one found; or ``"mean"``, given z alone: what cells like it expect.
    gene_list
        Only these features of a single modality, as a data frame in ``obsm`` with the name of the
        layer.
    transform_batch
        Decode every cell as if it came from this batch, or the average over several. That is
        always the decoder's mean.
    library_size
        ``"observed"``, each cell's own size, ``"latent"``, the inferred one, or a number.
    n_samples
        Number of draws of z; 1 is the mean of z.
    batch_size
        Cells at once; scvi-tools' default if None.
    out
        Write a file instead, a minibatch at a time, with ``obs``, ``var`` and the values, and with
        the counts too if ``layer_added`` is None: ``"x.zarr"``, ``"x.h5ad"`` for an AnnData or
        ``"x.h5mu"`` for a MuData. It replaces a file of that name when it is complete, in one step.
        If None, an object that is backed (``"r+"``) is written to its own file in the same way.
    dtype
        ``"float32"`` or ``"float16"``.
    drop_below
        Smallest value that is stored, in a sparse matrix; all values if None. The share of the sum
        that is dropped is logged and in ``uns["betavi"]["denoised"]``. Standard deviations are
        stored where means are.
    show_progress
        Show a bar.
    modalities
        Modalities to denoise; all if None.

    Raises
    ------
    KeyError
        If a gene is unknown.
    TypeError
        If ``gene_list`` is a single name.
    ValueError
        If a word or a number means nothing, a modality or a batch is unknown, ``gene_list`` is not
        of one modality, the object is minified or a view of a file, a value is too large for
        ``dtype``, ``layers["counts"]`` is taken, or a layer that is named holds whole numbers, such
        as counts, that this did not write. The object is as it was.
    FileNotFoundError, FileExistsError
        If there is no such folder, or something else of that name.

    References
    ----------
    Huang et al. (2018), SAVER, for the posterior of a rate; Lopez et al. (2018), scVI.

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
        raise ValueError("gene_list is of one modality: name it, modalities=.")
    refuse_view_of_file(adata)
    options = DenoiseOptions(
        estimate, n_samples, library_size, transform_batch, batch_size, show_progress
    )
    # what reading an object writes into it is undone too
    with untouched_on_failure(model.adata if adata is None else adata):
        adata = model._validate_anndata(adata)
        options = checked(model, adata, names, options)
        layers = layer_added, std_layer_added
        into = [
            _destination(model, adata, name, *layers, StorageFormat(dtype, drop_below), genes)
            for name in names
        ]
        for one in into:
            one.check(out)
        with _opened(model, adata, into, options, out) as writer:
            seed = int(torch.randint(2**31, ()))
            for one in into:
                for part in estimates(model, adata, one.name, options, seed, one.features):
                    one.add(*part, writer)
    for one in into:
        if drop_below is not None:
            inform(
                f"Values of {one.name} below {drop_below:g} were dropped: "
                f"{one.stored.dropped_share:.2%} of the sum of all."
            )


def _distinct(gene_list: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the names in any kind of list, each of them once."""
    if gene_list is None:
        return None
    if isinstance(gene_list, str):
        raise TypeError(f"gene_list is a list of names: [{gene_list!r}].")
    genes = tuple(gene_list)
    if not genes:
        raise ValueError("gene_list is empty: leave it out to denoise all genes.")
    gene, times = Counter(genes).most_common(1)[0]
    if times > 1:
        raise ValueError(f"gene_list names {gene!r} {times} times.")
    return genes


def _destination(model: LatentModel, adata: AnnOrMuData, name: str, *how: Any) -> Destination:
    part, setup_args = model.adapter.part(adata, name), model.manager(adata).registry["setup_args"]
    prefix = "" if part is adata else f"mod/{name}/"
    counts = model.adapter.counts_layer(adata, setup_args, name)
    return Destination(name, part, prefix, counts, *how)


@contextmanager
def _opened(
    model: LatentModel,
    adata: AnnOrMuData,
    into: list[Destination],
    options: DenoiseOptions,
    out: str | Path | None,
) -> Iterator[Writer | None]:
    """Open the file that values go into, if there is one; complete it, or the object, at the end."""
    if out is not None:
        parts = {one.name: one.template() for one in into}
        template = model.adapter.together(parts, columns_of_user(adata.obs))
        with new_file(template, out, replaces=True) as writer:
            yield writer
            for one in into:
                moved = {MOVED_COUNTS: COUNTS_LAYER} if one.layer is None else {}
                writer.add_record(one.prefix, one.record(options) | moved)
    elif into[0].adata.isbacked and into[0].genes is None:
        with _own_file(into[0], options) as writer:
            yield writer
    else:
        yield None
        with layers_as_before([one.adata for one in into]):
            for one in into:
                one.put(one.record(options))


@contextmanager
def _own_file(one: Destination, options: DenoiseOptions) -> Iterator[Writer]:
    """Open a copy of the file that backs an object, which takes its place."""
    own = Path(one.adata.filename).resolve()
    before = own.stat().st_ino
    try:
        layers = [one.key(layer) for layer in (one.layer, one.std_layer) if layer is not None]
        with changed_file(one.adata, layers) as writer:
            yield writer
            writer.add_record("", one.record(options))
    finally:
        # whatever came after that: what the object would go on to read is no file any more
        if own.stat().st_ino != before:
            one.reopen(one.record(options))
