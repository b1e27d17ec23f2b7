"""Loading of models, without running code of their files."""

from __future__ import annotations

import inspect
import os
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import mudata
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data._constants import _FIELD_REGISTRIES_KEY, _SETUP_ARGS_KEY
from scvi.data._download import _download
from scvi.model._utils import parse_device_args
from scvi.model.base._save_load import _initialize_model, _validate_var_names

from betavi.data import counts_of
from betavi.model.io.files import ARCHIVE, JSON, damage, read, unchanged
from betavi.model.io.saved import CLASSES
from betavi.model.io.together import current
from betavi.model.setup.messages import warn

if TYPE_CHECKING:
    from scvi._types import AnnOrMuData
    from scvi.model.base import BaseModelClass

    from betavi.model.core.latent_model import LatentModel
    from betavi.model.io.saved import Saved

POSTERIORS = ("_scvi_latent_qzm", "_scvi_latent_qzv")
"""Keys of posteriors in ``obsm`` of an object without counts that may be minified again."""


def load(
    cls: type[LatentModel],
    /,
    dir_path: str | os.PathLike[str],
    adata: AnnOrMuData | bool | None = None,
    accelerator: str = "auto",
    device: int | str = "auto",
    prefix: str | None = None,
    backup_url: str | None = None,
    datamodule: Any = None,
    allowed_classes_names_list: list[str] | None = None,
    trust_pickle: bool = False,
) -> Any:
    """Return a saved model. Opening someone else's folder runs no code.

    Parameters
    ----------
    dir_path
        Folder that ``save`` wrote.
    adata
        Object to use with the model. It is set up as in training. If None, the object that was
        saved with the model. If False, no object.
    accelerator, device
        Device of the model, see :meth:`scvi.model.SCVI.load`.
    prefix
        Start of the file names, as in ``save``.
    backup_url
        Address of a ``model.pt`` that betavi wrote. It is downloaded if the folder has no model.
    datamodule
        Datamodule of a model that was made from a registry.
    allowed_classes_names_list
        Names of other classes whose files may be loaded.
    trust_pickle
        Open a ``model.pt`` of betavi 0.1, which can run any code. Use it only for files of authors
        whom you trust, or rewrite the folder once with :func:`betavi.convert`.

    Raises
    ------
    ValueError
        If the folder has no model, a file is damaged, the model is of another class, or the file is
        a pickle and ``trust_pickle`` is False.

    Examples
    --------
    >>> import betavi
    >>> from tempfile import mkdtemp
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model, folder = betavi.BetaVI(adata, n_latent=5), mkdtemp()
    >>> model.save(folder, overwrite=True)
    >>> betavi.BetaVI.load(folder, adata).module.options.n_latent
    5
    """
    _, _, torch_device = parse_device_args(
        accelerator=accelerator, devices=device, return_device="torch", validate_single_device=True
    )
    place, start = Path(dir_path), prefix or ""
    if backup_url is not None and not current(place, JSON, start).is_file():
        _download(backup_url, str(dir_path), f"{start}{ARCHIVE}")

    def found() -> tuple[Saved, Any]:
        saved = read(place, prefix, trust_pickle)
        _check_class(cls, saved, allowed_classes_names_list or [])
        return saved, _read_object(place, saved, start) if adata is None else adata

    saved, adata = unchanged(place, start, found)
    path = current(place, JSON, start)
    path = path if path.is_file() else current(place, ARCHIVE, start)
    model = _build(cls, saved, None if adata is False else adata, datamodule, path)
    model.to_device(torch_device)
    model.module.eval()
    if model.adata is not None:
        _check_minified(saved, model.adata)
        model._validate_anndata(model.adata)
    return model


def load_registry(
    dir_path: str | os.PathLike[str], prefix: str | None = None, trust_pickle: bool = False
) -> dict[str, Any]:
    """Return the registry of a saved model. Opening someone else's folder runs no code.

    Parameters
    ----------
    dir_path
        Folder that ``save`` wrote.
    prefix
        Start of the file names, as in ``save``.
    trust_pickle
        Open a ``model.pt`` of betavi 0.1, which can run any code.

    Raises
    ------
    ValueError
        If the folder has no model, a file is damaged, or the file is a pickle and ``trust_pickle``
        is False.

    Examples
    --------
    >>> import betavi
    >>> from tempfile import mkdtemp
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    >>> model, folder = betavi.BetaVI(adata), mkdtemp()
    >>> model.save(folder, overwrite=True)
    >>> betavi.BetaVI.load_registry(folder)["setup_args"]["batch_key"]
    'batch'
    """
    registry: dict[str, Any] = read(dir_path, prefix, trust_pickle).attributes["registry_"]
    return registry


def view_setup_args(dir_path: str | os.PathLike[str], prefix: str | None = None) -> None:
    """Print the arguments of the setup of a saved model.

    Parameters
    ----------
    dir_path
        Folder that ``save`` wrote.
    prefix
        Start of the file names, as in ``save``.

    Examples
    --------
    >>> import betavi, io
    >>> from contextlib import redirect_stdout
    >>> from tempfile import mkdtemp
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model, folder, text = betavi.BetaVI(adata), mkdtemp(), io.StringIO()
    >>> model.save(folder, overwrite=True)
    >>> with redirect_stdout(text):
    ...     betavi.BetaVI.view_setup_args(folder)
    >>> "batch_key" in text.getvalue()
    True
    """
    AnnDataManager.view_setup_method_args(load_registry(dir_path, prefix))


def opened(model: str | os.PathLike[str] | BaseModelClass) -> Any:
    """Return a model as it is, or the content of a folder, which scvi-tools reads like a model."""
    return read(model) if isinstance(model, str | os.PathLike) else model


def _check_class(cls: type[LatentModel], saved: Saved, allowed: list[str]) -> None:
    """Raise a ValueError for files of another class."""
    name = saved.class_name
    if name in (None, cls.__name__, *allowed):
        return
    start = "It appears you are loading a model from a different class. The files are of "
    if name not in CLASSES:
        # a stranger's file names the class, so a remedy must not repeat it
        raise ValueError(
            f"{start}the class {str(name)[:50]!r}, which betavi cannot load. Open the folder with the "
            "program that saved it, if you trust its author."
        )
    raise ValueError(
        f"{start}{name}. Call betavi.{name}.load(), or pass allowed_classes_names_list=[{name!r}]."
    )


def _read_object(folder: Path, saved: Saved, prefix: str) -> Any:
    """Return the object that was saved with the model, or False with a warning."""
    path = current(folder, saved.data_name, prefix)
    if saved.data is not None and path.is_file():
        try:
            return (mudata.read_h5mu if path.suffix == ".h5mu" else anndata.read_h5ad)(path)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path} cannot be read: {error}. Copy the file again from its source. Or, load the "
                "model without it: load(..., adata=False)"
            ) from error
    if path.is_file():
        warn(
            f"{path} was not saved together with this model, so it is not loaded, and the model "
            "has no object. To use the file, read it and pass the object: load(..., adata=...). To "
            "silence this warning, pass adata=False."
        )
    else:
        warn(
            "Save path contains no saved anndata and no adata was passed. Model will be loaded "
            "without anndata. To silence this warning, pass `adata`, or adata=False."
        )
    return False


def _build(cls: type[LatentModel], saved: Saved, adata: Any, datamodule: Any, path: Path) -> Any:
    """Return a model with the saved settings and tensors. ``path`` names the file in errors."""
    attributes = dict(saved._get_user_attributes())
    registry = attributes.pop("registry_")
    if adata is not None:
        _set_up(cls, saved, adata, path)
    with damage(path, (KeyError, TypeError, AttributeError)):
        # the constructors take no datamodule, because the registry has the sizes of the networks
        model = _initialize_model(cls, adata, registry, attributes, None)
    if datamodule is not None:
        model._datamodule = datamodule
    model.module.on_load(model, pyro_param_store=None)
    with damage(path):
        model.module.load_state_dict(saved.tensors)
    return model


def _set_up(cls: type[LatentModel], saved: Saved, adata: Any, path: Path) -> None:
    """Set up an object as in training."""
    registry = deepcopy(saved.attributes["registry_"])
    if _SETUP_ARGS_KEY not in registry:
        raise ValueError(
            "Saved model does not contain original setup inputs, so no object can be set up. "
            "Load it with adata=False."
        )
    _validate_var_names(adata, saved.get_var_names())
    if saved.setup_name == "setup_datamodule":
        return
    setup, arguments = getattr(cls, saved.setup_name), registry[_SETUP_ARGS_KEY]
    with damage(path):
        # errors of the call itself are about the object
        inspect.signature(setup).bind(adata, source_registry=None, **arguments)
    setup(adata, source_registry=registry, **arguments)


def _check_minified(saved: Saved, adata: Any) -> None:
    """Raise a ValueError for an object without counts, if the model was not minified."""
    registry = saved.attributes["registry_"]
    fields, setup = (registry.get(key) or {} for key in (_FIELD_REGISTRIES_KEY, _SETUP_ARGS_KEY))
    parts = [(adata, setup.get("layer"))]
    if isinstance(adata, MuData):
        layers = setup.get("layers") or {}
        parts = [(adata[name], layers.get(name)) for name in setup.get("likelihoods", adata.mod)]
    # all cells may lack some modalities
    measured = [part for part in parts if part[0].n_obs]
    is_empty = bool(measured) and _has_no_counts(*measured[0])
    has_posteriors = all(key in parts[0][0].obsm for key in POSTERIORS)
    if is_empty and REGISTRY_KEYS.MINIFY_TYPE_KEY not in fields and not has_posteriors:
        kind = "adata" if isinstance(adata, AnnData) else "mudata"
        raise ValueError(
            f"It appears you are trying to load a non-minified model with minified {kind}. Pass "
            "the object with the counts: load(..., adata=...)"
        )


def _has_no_counts(part: AnnData, layer: str | None) -> bool:
    counts = counts_of(part, layer if layer in part.layers else None)
    return bool(sparse.issparse(counts) and counts.nnz == 0)
