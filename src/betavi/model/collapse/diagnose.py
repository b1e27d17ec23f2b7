"""Whether the latent space of a model is alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scvi.utils import unsupported_if_adata_minified

from betavi.data import COUNTS
from betavi.model.collapse.report import FEWEST_CELLS, DiagnosisMixin, View
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from betavi.diagnostics import CollapseReport


class DiagnoseMixin(DiagnosisMixin):
    """Posterior collapse, seen and explained."""

    @unsupported_if_adata_minified
    def diagnose(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        beta: float | None = None,
        seed: int = 0,
        show_progress: bool = True,
    ) -> CollapseReport:
        """Say whether the latent space is alive, dimension by dimension, and if not, why.

        Every dimension is taken away in turn: cells are decoded with a value of the prior in its
        place, to see whether the decoder misses it; and the encoder is shown data drawn from the
        model without its signal, with one half of the genes put back or the other, to see whether
        both say the same of a cell, as only signal makes them. The directions in the data that a
        linear theory keeps alive at this β are set beside that.

        Parameters
        ----------
        adata, indices
            Which cells, by names, positions or a mask; of the model's own those held out in training, or all where these are fewer
            than 100, if None. Of more than 2,000, as many at random.
        beta
            Which β to ask a model of many about; see :meth:`get_latent_representation`.
        seed
            Of the cells, draws and shuffles. The generator of torch is left as it was.
        show_progress
            Show a bar.

        Returns
        -------
        Verdict, causes, remedies and the numbers behind them. ``print`` it, or let a notebook show
        it; :func:`betavi.pl.collapse` draws it.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If it is deterministic, or there are fewer than 20 cells.

        References
        ----------
        Lucas et al. (2019), Don't blame the ELBO! Burda et al. (2016), Importance weighted
        autoencoders. Hoffman & Johnson (2016), ELBO surgery. Cremer et al. (2018), Inference
        suboptimality in variational autoencoders.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> model.train(max_epochs=2, enable_progress_bar=False)
        >>> report = model.diagnose(show_progress=False)
        >>> len(report.dimensions), report.verdict in ("healthy", "partial", "unclear", "collapsed")
        (3, True)
        """
        self._refuse_to_diagnose()
        adata = self._validate_anndata(adata)
        rng = np.random.default_rng(seed)
        judged = (
            self._cells_to_judge(adata)
            if indices is None
            else cells_named(adata.obs_names, indices, "indices")
        )
        # the directions are those of all cells that the model is of, whichever of them are judged
        everyone = np.arange(adata.n_obs) if adata is self.adata or indices is None else judged
        if len(judged) < FEWEST_CELLS:
            raise ValueError(f"A diagnosis takes at least {FEWEST_CELLS} cells, not {len(judged)}.")
        view = View(adata, (COUNTS,), judged, everyone)
        with self._own_draws(seed), self._at(beta):
            return self._report(view, rng, show_progress)
