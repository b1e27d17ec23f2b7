"""Predictions for single cells: measured cells in another condition, and new cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData

from betavi import _blocks
from betavi.data import COUNTS
from betavi.data.conditions import CONTEXT, PERTURBATION
from betavi.data.doses import joined_doses
from betavi.model.effects.draws import condition_in
from betavi.model.setup.selection import cells_named
from betavi.module.effects import DESIGN

if TYPE_CHECKING:
    from betavi.model.core.latent_model import LatentModel, Tensors
    from betavi.model.effects.draws import Condition
    from betavi.module.effect_fit import EffectEstimate

N_CELLS = 400
"""Number of new cells from which an interval is computed."""


@torch.inference_mode()
def counterfactual(
    model: LatentModel,
    estimate: EffectEstimate,
    name: str,
    condition: Condition,
    cells: Any,
) -> AnnData:
    """Return the expected counts of measured cells as if they had another condition."""
    adata = own_object(model, "predict(cells=...)")
    chosen = cells_named(adata.obs_names, cells, "cells")
    means = []
    with model.seeded(0):
        for tensors in model.minibatches(adata, chosen, _blocks.ENCODED_CELLS):
            contexts = context_codes(tensors)
            rows = {
                code: condition_in(estimate, condition.parts, condition.doses, code).row
                for code in np.unique(contexts)
            }
            design = torch.as_tensor(np.stack([rows[code] for code in contexts]))
            inferred = model.infer(tensors)
            z = model.module.latent.transform(inferred["qz"].mean)
            log_size = model.module.log_sizes(tensors, inferred, COUNTS)
            given = tensors | {DESIGN: design.float()}
            px = model.decode(z, given, COUNTS, log_size)
            means.append(model.likelihood(COUNTS).expected(px).cpu().numpy())
    obs = adata.obs.iloc[chosen].drop(columns=[c for c in adata.obs if c.startswith("_scvi")])
    arguments = model.registry_["setup_args"]
    obs[arguments["perturbation_key"]] = name
    if condition.doses is not None:
        obs[arguments["dose_key"]] = joined_doses(condition.doses, arguments["separator"])
    return AnnData(np.concatenate(means), obs=obs, var=adata.var[[]].copy())


def own_object(model: LatentModel, ability: str) -> AnnData:
    """Return the model's object. Raise a ValueError without one. ``ability`` is a call."""
    if model.adata is None:
        raise ValueError(
            f"`{ability}` reads cells, but the model has no object. Load the model with its object: "
            "load(folder, adata=...)"
        )
    adata: AnnData = model._validate_anndata(None)
    return adata


def context_codes(tensors: Tensors) -> np.ndarray:
    """Return the codes of the contexts of a minibatch, ``(n_cells,)``."""
    if CONTEXT in tensors:
        codes: np.ndarray = tensors[CONTEXT].squeeze(-1).long().cpu().numpy()
        return codes
    return np.zeros(len(tensors[PERTURBATION]), dtype=np.int64)


@torch.inference_mode()
def new_cell_quantiles(
    model: LatentModel, row: np.ndarray, context: int, level: float, seed: int
) -> np.ndarray:
    """Return both ends of the interval of a new cell's share of each gene, ``(2, n_genes)``.

    The states of new cells are drawn around those of control cells of the context. Their total count
    is the median of these cells.
    """
    cells = control_cells(model, context)
    rng = np.random.default_rng(seed)
    with model.seeded(seed):
        (tensors,) = model.minibatches(model.adata, rng.choice(cells, N_CELLS), N_CELLS)
        inferred = model.infer(tensors)
        log_size = model.module.log_sizes(tensors, inferred, COUNTS).median()
        design = torch.as_tensor(row).float().expand(N_CELLS, -1)
        px = model.decode(
            inferred["z"], tensors | {DESIGN: design}, COUNTS, log_size.expand(N_CELLS, 1)
        )
        counts = px.sample().double().cpu().numpy()
    tail = (1 - level) / 2
    ends: np.ndarray = np.quantile(counts, [tail, 1 - tail], axis=0)
    return ends / float(log_size.exp())


def control_cells(model: LatentModel, context: int) -> np.ndarray:
    """Return the control cells of a context, or all controls if it has none."""
    manager = model.adata_manager
    codes = np.asarray(manager.get_from_registry(PERTURBATION)).ravel().astype(int)
    is_control = (model.conditions.parts[codes] < 0).all(axis=1)
    if CONTEXT in manager.data_registry:
        here = np.asarray(manager.get_from_registry(CONTEXT)).ravel() == context
        is_control = is_control & here if (is_control & here).any() else is_control
    return np.flatnonzero(is_control)
