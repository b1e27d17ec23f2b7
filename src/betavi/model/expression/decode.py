"""Values read from the decoded distribution of a modality, cell by cell."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from betavi.model.core.covariates import batch_codes
from betavi.model.setup.selection import features_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.likelihoods import Likelihood
    from betavi.model.core.latent_model import LatentModel, Tensors

Batches = str | int | list[str] | list[int] | None


class DecodeRequest(NamedTuple):
    """Cells (positions), features and batches (user's names) to decode, and the number of draws."""

    cells: Sequence[int] | np.ndarray | None = None
    features: Sequence[str] | None = None
    transform_batch: Batches = None
    n_samples: int = 1
    batch_size: int | None = None
    average_draws: bool = True
    progress: str | None = None
    loader_kwargs: Mapping[str, Any] = MappingProxyType({})


def decoded(
    model: LatentModel,
    adata: AnnOrMuData | None,
    name: str,
    request: DecodeRequest,
    read: Callable[[Any], Tensor],
    dataloader: Iterable[Tensors] | None = None,
) -> np.ndarray:
    """Return values read from p(x given z) of a modality, ``([n_samples,] n_cells, n_features)``.

    Only the requested features are decoded, and draws are averaged one minibatch at a time.
    """
    columns, codes = None, batch_codes(model.adata_manager, None)
    if request.features is not None:
        called = f"The modality {name!r}" if len(model.modalities) > 1 else "adata"
        columns = features_named(model.features(name), request.features, called)
    if dataloader is None:
        codes = batch_codes(model.adata_manager, request.transform_batch)
        loading = request.cells, request.batch_size, None, request.progress
        dataloader = model.minibatches(adata, *loading, **request.loader_kwargs)
    parts, likelihood = [], model.likelihood(name)
    only = columns if likelihood.scale_is_local else None
    for tensors in dataloader:
        inferred = model.infer(tensors, request.n_samples)
        size = decoded_log_size(model, tensors, inferred, name)
        with likelihood.only(only):
            each = [read(model.decode(inferred["z"], tensors, name, size, code)) for code in codes]
        values = torch.stack(each).mean(dim=0) if len(each) > 1 else each[0]
        if request.n_samples > 1 and request.average_draws:
            values = values.mean(dim=0)
        parts.append(values.cpu().numpy())
    found = np.concatenate(parts, axis=-2)
    return found if columns is None or only is not None else found[..., columns]


def refuse_with_dataloader(dataloader: Iterable[Tensors] | None, **given: Any) -> None:
    """Raise a ValueError for arguments that need an object, if minibatches take its place."""
    needing = [word for word, value in given.items() if value is not None]
    if dataloader is not None and needing:
        raise ValueError(
            f"`{needing[0]}` was passed with `dataloader`, and needs an object. Pass `adata` in "
            f"place of `dataloader`, or leave `{needing[0]}` out."
        )


def decoded_log_size(
    model: LatentModel, tensors: Tensors, inferred: dict[str, Any], name: str
) -> Tensor:
    """Return the log size to decode at: the typical one where cells may lack the modality."""
    typical = model.module.typical(name)
    return model.module.log_sizes(tensors, inferred, name) if typical is None else typical.usual


def table(
    model: LatentModel,
    adata: AnnOrMuData | None,
    name: str,
    request: DecodeRequest,
    read: Callable[[Any], Tensor],
    return_numpy: bool | None = None,
    dataloader: Iterable[Tensors] | None = None,
) -> pd.DataFrame | np.ndarray:
    """Return :func:`decoded` values as a data frame, or as an array if requested or needed."""
    if dataloader is not None:
        return decoded(model, adata, name, request, read, dataloader)
    adata = model._validate_anndata(adata)
    values = decoded(model, adata, name, request, read)
    if return_numpy or values.ndim == 3:
        return values
    names = adata.obs_names if request.cells is None else adata.obs_names[request.cells]
    columns = model.features(name) if request.features is None else pd.Index(list(request.features))
    return pd.DataFrame(values, index=names, columns=columns)


def suitable_modality(
    model: LatentModel, modality: str | None, suits: Callable[[Likelihood], bool]
) -> str:
    """Return the named modality, or the only suitable one, by its likelihood; or raise a ValueError."""
    suitable = [name for name in model.modalities if suits(model.likelihood(name))]
    choices = ", ".join(map(repr, suitable))
    if modality is not None:
        (name,) = model.named_modalities(modality)
        if name not in suitable:
            raise ValueError(
                f"{name!r} has the likelihood {model.module.likelihood_names[name]!r}, for which this "
                f"is not defined. Modalities that it is defined for: {choices or 'none here'}."
            )
        return name
    if len(suitable) != 1:
        raise ValueError(
            f"Say which modality is meant, modality=...: {choices or 'there is none that suits'}."
        )
    return suitable[0]


def expression_modality(model: LatentModel, modality: str | None) -> str:
    """Return the modality whose expression is requested; proteins only by name."""
    if len(model.modalities) == 1 and modality is None:
        return model.modalities[0]
    named = modality is not None

    def suits(part: Likelihood) -> bool:
        return not part.is_of_detection and (named or not part.has_background)

    return suitable_modality(model, modality, suits)


def named_modality(model: LatentModel, modality: str | None) -> str:
    """Return the requested modality; any one by name."""
    if modality is None:
        return expression_modality(model, None)
    (name,) = model.named_modalities(modality)
    return name
