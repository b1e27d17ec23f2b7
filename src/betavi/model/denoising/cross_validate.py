"""Denoising judged by molecules that it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from betavi.data import COUNTS
from betavi.diagnostics import DenoisingReport, molecules
from betavi.model.core._transition import refuse_minified
from betavi.model.denoising.molecules import Asking, HeldOutMixin
from betavi.model.denoising.retrain_single import RetrainSingleMixin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class CrossValidateMixin(HeldOutMixin, RetrainSingleMixin):
    """Says what denoised values are worth, and of which genes."""

    def cross_validate_denoising(
        self,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        fraction: float = 0.1,
        n_samples: int = 1,
        seed: int = 0,
        show_progress: bool = True,
        **train_kwargs: Any,
    ) -> DenoisingReport:
        """Train on a part of the molecules, and see how well the others are expected.

        This is molecular cross-validation: every molecule is held out with a probability, a model
        like this one is trained on those that are left, and its denoised values are scored by those
        that are not. Beside it are the counts themselves, each gene's mean times the cell's depth,
        smoothing over nearest neighbours, and truncated SVD. This model is left as it is.

        Parameters
        ----------
        candidates
            Values of the constructor's arguments to choose between, all combinations of them, such as
            ``{"gene_likelihood": ["zinb", "nb"], "n_latent": [5, 10]}``. β of a model of many needs
            no training of its own. Only this model's if None.
        fraction
            Of the molecules to hold out.
        n_samples
            Draws of z; 1 is the mean of z.
        seed
            Of the split.
        show_progress
            Show bars.
        **train_kwargs
            Passed to :meth:`train`; ``max_epochs`` is that of this model if it was trained.

        Returns
        -------
        Scores of methods and of genes, and which genes to trust.

        Raises
        ------
        ValueError
            If the registered values are no counts, the object is minified, or a candidate makes no
            model.

        References
        ----------
        Batson, Royer & Webber (2019), Molecular cross-validation for single-cell RNA-seq.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> report = model.cross_validate_denoising(max_epochs=2, show_progress=False)
        >>> report.chosen in ("posterior", "mean"), report.genes["trusted"].dtype
        (True, dtype('bool'))
        """
        refuse_minified(self)
        (report,) = self._cross_validated(
            {COUNTS: molecules(self.raw_counts())},
            {COUNTS: self.adata.var_names},
            Asking(candidates, fraction, n_samples, seed, show_progress, train_kwargs),
        ).values()
        return report
