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
from betavi.model.covariates import batch_codes
from betavi.model.joint_expression import JointExpressionMixin

if TYPE_CHECKING:
    from mudata import MuData

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

        Positions are drawn from the prior, sizes given those, and counts from what the decoders make
        of both. Batches and further covariates are those of measured cells drawn at random.

        Parameters
        ----------
        n_cells
            How many.
        batch
            Only this one, with the further covariates of its cells.
        seed
            Of the draws; ``scvi.settings.seed`` if None. The generator of torch is left as it was.
        show_progress
            Show a bar.

        Returns
        -------
        Counts of every modality, of which ``obsm["z"]`` has the positions, ``(n_cells, n_latent)``,
        and ``obs`` the columns that the model was set up with, so that it can read the cells.

        Raises
        ------
        ValueError
            If there are to be no cells, the batch is unknown, or the object has no cells of it.

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
        self._validate_anndata()
        cells = self._of_batch(batch)
        seed = seed if seed is not None else settings.seed
        rng = np.random.default_rng(seed)
        pattern = rng.choice(cells, size=n_cells)
        parts: list[dict[str, np.ndarray]] = []
        self.module.eval()
        with torch.random.fork_rng(range(torch.cuda.device_count()), enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            loader = self._make_data_loader(self.adata, pattern, batch_size=CELLS_AT_ONCE)
            for tensors in track(loader, description="Generating", disable=not show_progress):
                parts.append(self._drawn_from_prior(tensors))
        return self._as_mudata(parts, pattern)

    def _of_batch(self, batch: str | int | None) -> np.ndarray:
        """Return the cells of a batch, or all of them."""
        (code,) = batch_codes(self.adata_manager, batch)
        codes = self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
        cells = np.arange(len(codes)) if code is None else np.flatnonzero(codes == code)
        if not len(cells):
            raise ValueError(f"The model's object has no cells of the batch {batch!r}.")
        return cells

    def _drawn_from_prior(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Return counts by modality of as many new cells as a minibatch has, and z."""
        module = self.module
        n_cells = len(tensors[REGISTRY_KEYS.BATCH_KEY])
        z = module.latent.transform(module.current_prior().sample((n_cells,)).to(self.device))
        drawn = {}
        for name in self.modalities:
            size = self._typical(name).given(z, self._measured(tensors, name)).sample()
            px = self._px(z, tensors, name, size)
            drawn[name] = sparse.csr_matrix(px.sample().clamp_min(0).cpu().numpy())
        return drawn | {"z": z.cpu().numpy()}

    def _as_mudata(self, parts: list[dict[str, Any]], pattern: np.ndarray) -> MuData:
        """Put new cells together, with the covariates of those whose pattern they have."""
        names = [f"generated_{number}" for number in range(len(pattern))]
        assays = {
            name: AnnData(
                sparse.vstack([part[name] for part in parts], format="csr"),
                obs=pd.DataFrame(index=names),
                var=pd.DataFrame(index=self._features(name)),
            )
            for name in self.modalities
        }
        found = assembled(assays)
        for column in registered_columns(self.registry_["setup_args"]):
            found.obs[column] = self.adata.obs[column].iloc[pattern].to_numpy()
        found.obsm["z"] = np.concatenate([part["z"] for part in parts])
        return found


def registered_columns(setup_args: dict[str, Any]) -> list[str]:
    """Return the columns of ``obs`` that a model reads."""
    one = [setup_args[word] for word in ("batch_key", "labels_key")]
    several = ("categorical_covariate_keys", "continuous_covariate_keys")
    return [key for key in one if key is not None] + [
        key for word in several for key in setup_args[word] or []
    ]
