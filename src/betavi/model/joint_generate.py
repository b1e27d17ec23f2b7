"""Cells that no one has measured, with every assay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS, settings
from scvi.utils import track

from betavi._mudata import assembled
from betavi.model.joint_expression import JointExpressionMixin
from betavi.module import expert_keys, present_key
from betavi.nn import observed_log_library

if TYPE_CHECKING:
    from mudata import MuData
    from torch import Tensor

CELLS_AT_ONCE = 512


class JointGenerateMixin(JointExpressionMixin):
    """Paired cells from the prior."""

    @torch.inference_mode()
    def generate(
        self,
        n_cells: int,
        batch: str | int | None = None,
        seed: int | None = None,
        show_progress: bool = True,
    ) -> MuData:
        """Draw cells that have every assay.

        Positions are drawn from the prior, and counts from what the decoders make of them. Sizes,
        batches and further covariates are those of cells drawn at random; of an assay that such a
        cell lacks, the size is the median one of its batch.

        Parameters
        ----------
        n_cells
            How many.
        batch
            Draw as if all cells came from this one.
        seed
            Of the draws; ``scvi.settings.seed`` if None. The generator of torch is left as it was.
        show_progress
            Show a bar.

        Returns
        -------
        Counts of every modality, of which ``obsm["z"]`` has the positions, ``(n_cells, n_latent)``,
        and ``obs["batch"]`` the batches.

        Raises
        ------
        ValueError
            If there are to be no cells, or the batch is unknown.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100)
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        >>> model = betavi.JointVI(mdata, n_latent=5)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> new = model.generate(50, seed=0, show_progress=False)
        >>> sorted(new.mod), new.n_obs
        (['adt', 'rna'], 50)
        """
        self._check_if_trained(warn=False)
        if n_cells < 1:
            raise ValueError(f"n_cells={n_cells}: there is nothing to generate.")
        code = self._batch_code(batch)
        seed = seed if seed is not None else settings.seed
        rng = np.random.default_rng(seed)
        pattern = rng.integers(self.adata.n_obs, size=n_cells)
        parts: list[dict[str, np.ndarray]] = []
        self.module.eval()
        with torch.random.fork_rng(range(torch.cuda.device_count()), enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            loader = self._make_data_loader(self.adata, pattern, batch_size=CELLS_AT_ONCE)
            for tensors in track(loader, description="Generating", disable=not show_progress):
                parts.append(self._drawn_from_prior(tensors, code))
        return self._as_mudata(parts)

    def _drawn_from_prior(self, tensors: dict[str, Any], code: int | None) -> dict[str, Any]:
        """Return counts by modality of as many new cells as a minibatch has, z and batch."""
        module, key = self.module, REGISTRY_KEYS.BATCH_KEY
        if code is not None:
            tensors = tensors | {key: torch.full_like(tensors[key], code)}
        u = module.current_prior().sample((len(tensors[key]),)).to(self.device)
        z, drawn = module.latent.transform(u), {}
        for name in self.modalities:
            px = self._px(z, tensors, name, self._log_sizes(tensors, name))
            drawn[name] = sparse.csr_matrix(px.sample().cpu().numpy())
        return drawn | {"z": z.cpu().numpy(), key: tensors[key].cpu().numpy().ravel()}

    def _log_sizes(self, tensors: dict[str, Any], name: str) -> Tensor:
        """Return the log sizes of cells, those of their batch where they lack the modality."""
        totals = tensors.get(expert_keys(name).total, tensors[name])
        observed = observed_log_library(totals.to(self.device))
        present = tensors[present_key(name)].to(self.device)
        return torch.where(present, observed, self._typical(name)(self._measured(tensors, name)))

    def _as_mudata(self, parts: list[dict[str, Any]]) -> MuData:
        codes = np.concatenate([part[REGISTRY_KEYS.BATCH_KEY] for part in parts])
        known = self.adata_manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY).categorical_mapping
        names = [f"generated_{number}" for number in range(len(codes))]
        assays = {
            name: AnnData(
                sparse.vstack([part[name] for part in parts], format="csr"),
                obs=pd.DataFrame(index=names),
                var=pd.DataFrame(index=self._features(name)),
            )
            for name in self.modalities
        }
        found = assembled(assays)
        found.obs["batch"] = pd.Categorical(np.asarray(known)[codes])
        found.obsm["z"] = np.concatenate([part["z"] for part in parts])
        return found
