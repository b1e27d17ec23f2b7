"""Experts in the place of counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData
from scipy import sparse
from scvi.data._constants import _ADATA_MINIFY_TYPE_UNS_KEY, ADATA_MINIFY_TYPE
from scvi.utils import track

from betavi._mudata import assembled, copied
from betavi._tables import close_matches
from betavi.data import counts_layer, present_key
from betavi.model.core.beta import MINIFIED_BETA
from betavi.model.core.latent import JointLatentMixin
from betavi.model.core.library_size import aligned
from betavi.model.reference.minified import MinifiedMixin
from betavi.model.setup.mudata import MINIFIED_COLUMNS, minified_fields

if TYPE_CHECKING:
    from typing import NoReturn

    from mudata import MuData

CELLS_AT_ONCE = 512


class JointMinifyMixin(MinifiedMixin, JointLatentMixin):
    """scvi-tools' minified mode, of which any fusion and any subset of modalities is left."""

    def minify_adata(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse: the object is a MuData.

        Raises
        ------
        TypeError
            Always. Use :meth:`minify_mudata`.
        """
        raise TypeError("A JointVI model is of a MuData: minify_mudata().")

    def minify_mudata(
        self,
        minified_data_type: str = ADATA_MINIFY_TYPE.LATENT_POSTERIOR,
        beta: float | None = None,
        show_progress: bool = True,
    ) -> None:
        """Keep what the encoders say of each cell in the place of its counts.

        The expert of every modality is kept, its means, variances and the totals of counts, in
        ``obsm`` and ``obs`` of the modality. The posterior from any of the modalities a cell has is
        made of them as it was of counts, so that latent positions, translations, expression,
        differential expression and generated cells stay what they were. What compares with counts
        is refused: ELBO, diagnosis, predictability, training.

        The model's object is replaced by a new one; the user's stays as it is. Modalities that the
        model is not of are left alone; of those that it is of, ``raw`` and further layers are
        dropped.

        Parameters
        ----------
        minified_data_type
            ``"latent_posterior_parameters"``, or ``"latent_posterior_parameters_with_counts"`` to
            keep the counts too.
        beta
            The β that the experts are of, which is what every getter answers at from then on; 1, or
            the end of the range closest to it, if None.
        show_progress
            Show a bar.

        Raises
        ------
        ValueError
            If the type is unknown, the model is not trained at that β, or is minified already.

        Examples
        --------
        >>> import betavi, logging, scvi
        >>> scvi.settings.verbosity = logging.WARNING
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, missing={"adt": 0.5})
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        >>> model = betavi.JointVI(mdata, n_latent=5)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> model.minify_mudata(show_progress=False)
        >>> float(model.adata["rna"].X.sum()), model.get_latent_representation(modalities="adt").shape
        (0.0, (100, 5))
        """
        if minified_data_type not in ADATA_MINIFY_TYPE:
            close = close_matches(minified_data_type, list(ADATA_MINIFY_TYPE))
            raise ValueError(f"There is no minified_data_type {minified_data_type!r}. {close}")
        if self.minified_data_type is not None:
            raise ValueError("The model's object is minified already.")
        self._check_if_trained(warn=False)
        beta = self.module.settled_beta if beta is None else float(beta)
        with self._at(beta):
            experts = self._experts(show_progress)
        keep_counts = minified_data_type == ADATA_MINIFY_TYPE.LATENT_POSTERIOR_WITH_COUNTS
        minified = self._with_experts(experts, keep_counts)
        minified.uns[_ADATA_MINIFY_TYPE_UNS_KEY] = minified_data_type
        minified.uns["betavi"] = minified.uns.get("betavi", {}) | {MINIFIED_BETA: beta}
        self._take_minified(minified, minified_fields(self.modalities))

    @torch.inference_mode()
    def _experts(self, show_progress: bool) -> dict[str, np.ndarray]:
        """Return means and variances by modality, ``(2, n_cells that have it, n_latent)``."""
        found: dict[str, np.ndarray] = {
            name: np.empty((2, self.adata[name].n_obs, self.module.options.n_latent), np.float32)
            for name in self.modalities
        }
        self.module.eval()
        loader = self._make_data_loader(self.adata, batch_size=CELLS_AT_ONCE)
        start = 0
        for tensors in track(loader, description="Minifying", disable=not show_progress):
            inferred = self.module.inference(**self.module._get_inference_input(tensors))
            for name, expert in inferred["experts"].items():
                here = tensors[present_key(name)].squeeze(1).cpu().numpy()
                stop = start + len(here)
                rows = aligned(self.adata_manager, name).position[start:stop][here]
                found[name][0, rows] = expert.mean.cpu().numpy()[here]
                found[name][1, rows] = expert.variance.cpu().numpy()[here]
            start = stop
        return found

    def _with_experts(self, experts: dict[str, np.ndarray], keep_counts: bool) -> MuData:
        """Return a new object in which modalities have experts, and counts only if they are kept."""
        parts, layers = dict(self.adata.mod), self.registry_["setup_args"]["layers"] or {}
        for name, (mean, variance) in experts.items():
            old = self.adata[name]
            totals = aligned(self.adata_manager, name).rows.totals()
            new = (
                old.copy()
                if keep_counts
                else _without_counts(old, counts_layer(old, layers.get(name)))
            )
            new.obsm[MINIFIED_COLUMNS.mean], new.obsm[MINIFIED_COLUMNS.variance] = mean, variance
            new.obs[MINIFIED_COLUMNS.total] = totals
            parts[name] = new
        found = copied(assembled(parts)[self.adata.obs_names])
        found.obs = self.adata.obs.copy()
        found.uns = dict(self.adata.uns)
        # without the masks of modalities, which are made anew
        for attribute in ("obsm", "varm", "obsp", "varp"):
            for key, value in getattr(self.adata, attribute).items():
                if key not in self.adata.mod:
                    getattr(found, attribute)[key] = value
        return found


def _without_counts(adata: AnnData, layer: str | None) -> AnnData:
    """Return an object with zeros in the place of counts."""
    empty = sparse.csr_matrix(adata.shape, dtype=np.float32)
    return AnnData(
        empty,
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        obsp=dict(adata.obsp),
        varp=dict(adata.varp),
        layers={} if layer is None else {layer: empty.copy()},
    )
