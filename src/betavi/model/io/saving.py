"""Saving of models, and rewriting of folders that older versions saved."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import anndata
import mudata
from mudata import MuData

from betavi.data import files_of
from betavi.model.io.files import read, writers_of
from betavi.model.io.saved import CLASSES, Saved, saved_from
from betavi.model.io.together import current, write_together
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from betavi.model.core.latent_model import LatentModel


def save(
    model: LatentModel,
    dir_path: str | os.PathLike[str],
    prefix: str | None = None,
    overwrite: bool = False,
    save_anndata: bool = False,
    save_kwargs: dict[str, Any] | None = None,
    legacy_mudata_format: bool = False,
    datamodule: Any = None,
    **anndata_write_kwargs: Any,
) -> None:
    """Save the model in files that run no code when they are opened.

    The folder gets ``model.safetensors`` (weights), ``model.json`` (settings, registry, history and
    checksums) and ``model.pt`` (a copy for scvi-tools' own tools). If the process is killed, the
    folder has all old files or all new ones. Other files of the folder do not change.

    Parameters
    ----------
    dir_path
        Folder. It is created if it does not exist.
    prefix
        Start of the file names. Several models can share a folder.
    overwrite
        Write into a folder that exists.
    save_anndata
        Save the model's object too, as ``adata.h5ad`` or ``mdata.h5mu``.
    save_kwargs
        Ignored with a warning. In scvi-tools, options of :func:`torch.save`.
    legacy_mudata_format
        For a MuData, save the names of the features in one list, and not by modality.
    datamodule
        Datamodule of a model that was made from a registry.
    **anndata_write_kwargs
        Options of :func:`anndata.io.write_h5ad` or :func:`mudata.write_h5mu`, such as
        ``compression="gzip"``.

    Raises
    ------
    ValueError
        If the folder exists and ``overwrite`` is False, or the model has no networks yet.
    TypeError
        If an argument of the model or of its setup has a type that the files cannot hold.

    Examples
    --------
    >>> import betavi
    >>> from tempfile import mkdtemp
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model, folder = betavi.BetaVI(adata), mkdtemp()
    >>> model.save(folder, overwrite=True, save_anndata=True)
    >>> betavi.BetaVI.load(folder).adata.shape
    (100, 20)
    """
    if save_kwargs:
        warn(
            "`save_kwargs` are options of torch.save, which writes only a copy of the model. They "
            "are ignored. Leave them out to silence this warning."
        )
    saved = saved_from(model, legacy_mudata_format, datamodule)
    if save_anndata and model.adata is None:
        warn(
            "`save_anndata=True` has no effect, because the model has no object. Leave it out to "
            "silence this warning."
        )
    elif save_anndata:
        _refuse_files(model.adata)
        saved.data = saved.data_name
    writer = _object_writer(model.adata, anndata_write_kwargs) if saved.data else None
    _write(saved, dir_path, prefix, overwrite, writer)


def convert(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    prefix: str | None = None,
    overwrite: bool = False,
) -> None:
    """Rewrite a folder of betavi 0.1 in files that run no code when they are opened.

    The ``model.pt`` of an old folder is a pickle, which can run any code. Convert only folders of
    authors whom you trust.

    Parameters
    ----------
    old
        Folder that an older version saved. It does not change.
    new
        New folder. A saved object is copied.
    prefix
        Start of the file names, as in ``save``.
    overwrite
        Write into a folder that exists.

    Returns
    -------
    None. The new folder has the model.

    Raises
    ------
    ValueError
        If ``old`` has no model of betavi, or ``new`` exists and ``overwrite`` is False.

    Examples
    --------
    >>> import betavi
    >>> from tempfile import mkdtemp
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> old, new = mkdtemp(), mkdtemp()
    >>> betavi.BetaVI(adata).save(old, overwrite=True)
    >>> betavi.convert(old, new, overwrite=True)
    >>> betavi.BetaVI.load(new, adata).is_trained
    False
    """
    saved = read(old, prefix, trust_pickle=True)
    # a model of a datamodule may have no name
    if saved.class_name not in (None, *CLASSES):
        raise ValueError(
            f"{old} has a model of the class {saved.class_name!r}. Only models of "
            f"{' and '.join(CLASSES)} can be converted. Open this folder with the program that saved it."
        )
    copy_object = None
    if saved.data:
        copy_object = partial(shutil.copyfile, current(Path(old), saved.data, prefix or ""))
    _write(saved, new, prefix, overwrite, copy_object)


def convert_legacy_save(_cls: type[LatentModel], /, *_args: Any, **_kwargs: Any) -> NoReturn:
    """Raise a NotImplementedError: use :func:`betavi.convert`.

    scvi-tools' method reads files from before version 0.15. betavi never wrote such files.
    """
    raise NotImplementedError(
        "`convert_legacy_save` reads files of scvi-tools before 0.15, which betavi never wrote. To "
        "rewrite a folder of betavi 0.1, call betavi.convert(old_folder, new_folder)"
    )


def _write(
    saved: Saved,
    dir_path: str | os.PathLike[str],
    prefix: str | None,
    overwrite: bool,
    write_object: Callable[[Path], object] | None,
) -> None:
    """Write all files, or none. An error leaves no new folder."""
    folder = Path(dir_path)
    is_new = not folder.exists()
    if not is_new and not overwrite:
        raise ValueError(
            f"{folder} already exists. Please provide another directory for saving, or pass "
            "overwrite=True."
        )
    # before the folder is made, so that a value that cannot be saved changes nothing
    writers = writers_of(saved)
    if write_object is not None:
        writers = {str(saved.data): write_object, **writers}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_together(folder, prefix or "", writers)
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _refuse_files(adata: Any) -> None:
    """Raise a ValueError if the counts of an object stay in files."""
    if files := files_of(adata):
        raise ValueError(
            f"The counts of the object stay in {name_some(list(map(str, files)))}, and cannot be saved with the "
            "model. Leave save_anndata out. Later, call load(folder, adata=betavi.data.read_lazy(paths))."
        )


def _object_writer(adata: Any, kwargs: dict[str, Any]) -> Callable[[Path], object]:
    # the functions, because methods would let a backed object refer to the new file
    if isinstance(adata, MuData):
        return lambda path: mudata.write_h5mu(path, adata, **kwargs)
    return lambda path: anndata.io.write_h5ad(path, adata, **kwargs)
