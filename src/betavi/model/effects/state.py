"""Information of the latent states about the perturbations, which effects should explain alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from betavi.data.conditions import CONTEXT, PERTURBATION
from betavi.model.effects.cells import own_object
from betavi.model.setup.arguments import check_arguments
from betavi.module.effect_groups import one_code_each

if TYPE_CHECKING:
    from betavi.model.core.latent_model import LatentModel

MUCH = 0.05
"""Information, in nats per cell, from which on states are reported to depend on the perturbation."""

N_FOLDS, FEWEST, MOST = 5, 10, 10_000
"""Number of parts of the cells, fewest cells of a condition, and most cells that are read."""


def state_information(model: LatentModel, seed: int = 0) -> pd.DataFrame:
    """Return how much the latent states tell about the conditions of cells, in nats.

    A model in which effects explain the perturbations has states that do not depend on them. The
    information is a lower bound: the entropy of the conditions, minus the cross-entropy of a
    multinomial logistic regression on the posterior means, for cells that it was not fitted to.

    Parameters
    ----------
    seed
        Seed of the choice of cells.

    Returns
    -------
    A table with one row for each context: ``nats``, the information; ``error``, its standard error;
    ``entropy`` of the conditions in nats; ``n_conditions``, ``n_cells``; and ``depends``, True if the
    information exceeds 0.05 nats by more than two standard errors.

    Raises
    ------
    ValueError
        If fewer than two conditions have 10 cells, or the model has no object.
    RuntimeError
        If the model is not trained.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_perturbations(n_cells=400, n_perturbations=3)
    >>> betavi.EffectVI.setup_anndata(adata, perturbation_key="perturbation")
    >>> model = betavi.EffectVI(adata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.state_information()["depends"].tolist()
    [False]
    """
    model._check_if_trained(warn=False)
    check_arguments({"seed": seed})
    own_object(model, "state_information")
    manager, contexts = model.adata_manager, model.conditions.contexts
    codes = np.asarray(manager.get_from_registry(PERTURBATION)).ravel().astype(int)
    codes = one_code_each(np.column_stack([codes, 0 * codes]), model.conditions)[:, 0]
    where = np.zeros(len(codes), dtype=int)
    if CONTEXT in manager.data_registry:
        where = np.asarray(manager.get_from_registry(CONTEXT)).ravel().astype(int)
    rng, rows = np.random.default_rng(seed), {}
    for place, name in enumerate(contexts):
        cells = np.flatnonzero(where == place)
        cells = np.sort(rng.permutation(cells)[:MOST])
        sizes = np.bincount(codes[cells])
        cells = cells[sizes[codes[cells]] >= FEWEST]
        if len(np.unique(codes[cells])) > 1:
            z = model.get_latent_representation(indices=cells)
            rows[name or "all cells"] = information(z, codes[cells])
    if not rows:
        raise ValueError(f"Fewer than two conditions have {FEWEST} cells.")
    return pd.DataFrame(rows).T.astype({"depends": bool})


def information(z: np.ndarray, codes: np.ndarray) -> dict[str, float | bool]:
    """Return the information of positions, ``(n_cells, n_latent)``, about codes, ``(n_cells,)``."""
    classes, labels, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    entropy_of = -np.log(sizes / len(codes))[labels]
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    chances = cross_val_predict(classifier, z, labels, cv=folds, method="predict_proba")
    gains = entropy_of + np.log(np.maximum(chances[np.arange(len(labels)), labels], 1e-12))
    nats, error = float(gains.mean()), float(gains.std() / np.sqrt(len(gains)))
    return {
        "nats": max(nats, 0.0), "error": error, "entropy": float(entropy_of.mean()),
        "n_conditions": len(classes), "n_cells": len(codes), "depends": nats - 2 * error > MUCH,
    }  # fmt: skip
