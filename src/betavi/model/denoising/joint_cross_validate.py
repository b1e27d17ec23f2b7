"""Denoising of several assays judged by molecules that it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from betavi._mudata import assembled
from betavi.diagnostics import molecules
from betavi.model.core._transition import refuse_minified
from betavi.model.core.library_size import aligned
from betavi.model.denoising.molecules import Asking, HeldOutMixin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mudata import MuData
    from scipy import sparse

    from betavi.diagnostics import DenoisingReport


class JointCrossValidateMixin(HeldOutMixin):
    """Says what denoised values of each modality are worth, and of which features."""

    def cross_validate_denoising(
        self,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        fraction: float = 0.1,
        n_samples: int = 1,
        seed: int = 0,
        show_progress: bool = True,
        **train_kwargs: Any,
    ) -> dict[str, DenoisingReport]:
        """Train on a part of the molecules of every assay, and see how well the others are expected.

        Assays of which only detection is modelled, or that are no whole numbers, are read as they
        are and not judged. Each is judged in the cells that have it.

        Parameters
        ----------
        candidates, fraction, n_samples, seed, show_progress, **train_kwargs
            See :meth:`betavi.BetaVI.cross_validate_denoising`. Likelihoods are no candidates: they
            are said in :meth:`setup_mudata`.

        Returns
        -------
        By modality, scores of methods and of features, and which features to trust.

        Raises
        ------
        ValueError
            If no modality has counts, the object is minified, or a candidate makes no model.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, missing={"adt": 0.5})
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        >>> model = betavi.JointVI(mdata, n_latent=5)
        >>> reports = model.cross_validate_denoising(max_epochs=1, show_progress=False)
        >>> sorted(reports), len(reports["adt"].genes) == mdata["adt"].n_vars
        (['adt', 'rna'], True)
        """
        refuse_minified(self)
        likelihoods = self.module.likelihoods
        judged = [
            name
            for name in self.modalities
            if likelihoods[name].is_of_counts and likelihoods[name].of_whole_numbers
        ]
        if not judged:
            raise ValueError("No modality has counts of molecules: there is nothing to hold out.")
        return self._cross_validated(
            {name: molecules(self._counts_of(name)) for name in judged},
            {name: self.adata[name].var_names for name in judged},
            Asking(candidates, fraction, n_samples, seed, show_progress, train_kwargs),
        )

    def _counts_of(self, name: str) -> Any:
        """Return the counts of a modality, in its own order."""
        rows = aligned(self.adata_manager, name).rows
        return rows[np.arange(rows.shape[0])]

    def _with_counts(self, counts: Mapping[str, sparse.csr_matrix]) -> MuData:
        parts = {}
        for name in self.modalities:
            old = self.adata[name]
            values = counts[name] if name in counts else self._counts_of(name)
            parts[name] = AnnData(values, obs=old.obs[[]].copy(), var=old.var[[]].copy())
        mdata = assembled(parts)
        mdata.obs = self.adata.obs.loc[mdata.obs_names].copy()
        args = dict(self.adata_manager.registry["setup_args"])
        changed = {"layers": None, "keep_absent_features": True}
        type(self).setup_mudata(mdata, **args | changed)
        return mdata

    def _cells_of(self, name: str) -> np.ndarray:
        return aligned(self.adata_manager, name).cells
