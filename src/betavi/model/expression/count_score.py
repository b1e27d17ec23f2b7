"""How well a model fits counts, comparable between likelihoods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.utils import unsupported_if_adata_minified

from betavi.data import Rows
from betavi.diagnostics import CountScore, CountTerms, ScoreSums
from betavi.model.core.beta import AtBetaMixin
from betavi.module.single import COUNTS
from betavi.nn import Point
from betavi.objective import rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

CELLS_AT_ONCE = 64
"""Every draw of each cell is in memory at once, in double precision."""


class CountScoreMixin(AtBetaMixin):
    """Probabilities of integer counts, also from densities."""

    @torch.inference_mode()
    @unsupported_if_adata_minified
    def score_counts(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples: int = 10,
        batch_size: int = CELLS_AT_ONCE,
    ) -> CountScore:
        """Score the model by the probability it gives to integer counts.

        The likelihoods zinb, nb and poisson are probabilities already. Those that are densities,
        lognormal and normal, are integrated over half a count on both sides, so that all of them
        can be set side by side; :func:`betavi.metrics.compare_likelihoods` does that.

        Parameters
        ----------
        adata, indices
            Which cells; all of the model's own if None.
        n_samples
            Draws from each posterior.
        batch_size
            Cells at once.

        Returns
        -------
        Nats per cell, and the zeros, means and variances predicted of each gene. With
        ``gene_likelihood="bernoulli"`` only ``detection`` means anything: how many counts there are
        has no probability, and what is said of it is NaN.

        Raises
        ------
        ValueError
            If there are no cells, or their values are no integers.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, gene_likelihood="lognormal")
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> score = model.score_counts()
        >>> score.predicted.zeros.shape
        (20,)
        """
        adata = self._validate_anndata(adata)
        loader = self._make_data_loader(adata=adata, indices=indices, batch_size=batch_size)
        sums = ScoreSums()
        for tensors in loader:
            counts = tensors[COUNTS].cpu().double().numpy()
            if (counts != counts.round()).any():
                raise ValueError(
                    "The registered values are no integers, and only counts have probabilities. "
                    "Register the layer that holds them: setup_anndata(..., layer=...)."
                )
            sums.add(counts, self._count_terms(tensors, n_samples))
        return sums.score()

    @unsupported_if_adata_minified
    def raw_counts(self, indices: Sequence[int] | None = None) -> Any:
        """Return the registered counts of some cells, or of all.

        Parameters
        ----------
        indices
            Positions of the cells, in the order wanted; all if None.

        Returns
        -------
        Counts, ``(n_cells, n_genes)``, sparse or dense as they are stored.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> betavi.BetaVI(adata).raw_counts([3, 1]).shape
        (2, 20)
        """
        rows = Rows(self.adata_manager.get_from_registry(COUNTS))
        return rows[np.arange(rows.shape[0]) if indices is None else np.asarray(indices)]

    def _count_terms(self, tensors: dict[str, Any], n_samples: int) -> CountTerms:
        inferred, generated = self.module.forward(
            tensors, inference_kwargs={"n_samples": n_samples}, compute_loss=False
        )
        qz, pz, px, u = inferred["qz"], generated["pz"], generated["px"], inferred["u"]
        likelihood = self.module.likelihoods[COUNTS]
        counts = tensors[COUNTS].to(u.device)
        if isinstance(qz, Point):
            # to name a point takes infinitely many nats
            log_ratio = rates = torch.full(u.shape[:-1], torch.inf)
        else:
            log_ratio = self.module.latent_log_ratio(inferred, generated)
            rates = rate(qz, pz, u)
        library_rate = torch.zeros(len(counts), device=u.device)
        if inferred["ql"] is not None:
            library_rate = rate(inferred["ql"], generated["pl"], inferred["library"])
        unknown = torch.zeros_like(counts) if likelihood.is_of_counts else torch.nan
        per_count = {
            "log_mass": likelihood.log_mass(px, counts) + unknown,
            "log_detection": likelihood.log_detection(px, counts),
            "zeros": likelihood.log_mass(px, torch.zeros_like(counts)).exp(),
            "mean": px.mean + unknown,
            "variance": px.variance + unknown,
        }
        shaped = {
            name: value.reshape(n_samples, *counts.shape) for name, value in per_count.items()
        }
        shaped["log_ratio"] = log_ratio.reshape(n_samples, len(counts))
        shaped["library_rate"] = library_rate
        shaped["rate"] = rates if rates.ndim == 1 else rates.mean(dim=0)
        return CountTerms(**{name: v.cpu().double().numpy() for name, v in shaped.items()})
