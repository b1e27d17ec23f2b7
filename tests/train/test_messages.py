"""Training shows messages about the run, and none about other products."""

from __future__ import annotations

import logging
import warnings

from lightning.fabric.utilities.rank_zero import rank_zero_module

from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.train.messages import ADVERTISED, without_advertising
from tests.conftest import BRIEF

TIP = f"{ADVERTISED[0]} Buy this."


def test_training_shows_no_advertising(caplog):
    adata = simulate_counts(n_cells=100, n_genes=20)
    BetaVI.setup_anndata(adata)
    caplog.handler.setLevel(logging.INFO)
    rank_zero_module.log.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            BetaVI(adata, n_latent=2).train(**BRIEF)
        # the check can fail: outside a run, tips are shown
        rank_zero_module.log.warning(TIP)
        with without_advertising():
            rank_zero_module.log.warning(TIP)
    finally:
        rank_zero_module.log.removeHandler(caplog.handler)
    shown = [
        record.getMessage() for record in caplog.records if record.name.startswith("lightning")
    ]
    assert {text for text in shown if text.startswith(ADVERTISED)} == {TIP}
    assert not [w for w in caught if "LeafSpec" in str(w.message)]
