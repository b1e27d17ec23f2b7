"""What a model says of data in numbers: marginal likelihoods and likelihood parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.model.base import BaseMinifiedModeModelClass, VAEMixin

from betavi.likelihoods import LIKELIHOODS
from betavi.model.expression.differential import CompareMixin
from betavi.module.single import COUNTS
from betavi.nn import StandardNormal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from torch import Tensor


class EvaluateMixin(CompareMixin, VAEMixin, BaseMinifiedModeModelClass):
    """scvi-tools' getters, some of them mended."""

    def get_marginal_ll(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_mc_samples: int = 1_000,
        batch_size: int | None = None,
        return_mean: bool = True,
        dataloader: Iterator[dict[str, Tensor | None]] | None = None,
        **kwargs: Any,
    ) -> Tensor | np.float64:
        """Estimate the log marginal likelihood by importance sampling, in nats per cell.

        scvi-tools averages the means of minibatches, so that a short last one counts too much. Here
        every cell counts once.

        Parameters
        ----------
        adata, indices, batch_size, dataloader
            Which cells, and how many at once. See
            :meth:`scvi.model.SCVI.get_marginal_ll`.
        n_mc_samples
            Number of posterior draws per cell.
        return_mean
            Return the mean over the cells.
        **kwargs
            ``n_mc_samples_per_pass``, and ``data_loader_kwargs``.

        Returns
        -------
        Estimates, ``(n_cells,)``, or their mean.

        Raises
        ------
        ValueError
            If the model is deterministic: an autoencoder has no marginal likelihood.

        References
        ----------
        Burda et al. (2016), Importance weighted autoencoders.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> model.get_marginal_ll(n_mc_samples=2, return_mean=False).shape
        torch.Size([100])
        """
        per_cell: Tensor = super().get_marginal_ll(
            adata,
            indices=indices,
            n_mc_samples=n_mc_samples,
            batch_size=batch_size,
            return_mean=False,
            dataloader=dataloader,
            **kwargs,
        )
        return np.float64(per_cell.double().mean().item()) if return_mean else per_cell

    def get_feature_correlation_matrix(self, *args: Any, **kwargs: Any) -> Any:
        """Return the correlations between genes of denoised samples, as scvi-tools does.

        Parameters
        ----------
        *args, **kwargs
            See :meth:`scvi.model.SCVI.get_feature_correlation_matrix`.

        Returns
        -------
        A data frame of genes by genes, ``(n_genes, n_genes)``.

        Raises
        ------
        NotImplementedError
            If the likelihood is not one of counts: the samples are of a gamma-Poisson mixture.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> model.get_feature_correlation_matrix(n_samples=2).shape
        (20, 20)
        """
        if not self.module.likelihoods[COUNTS].is_gamma_poisson:
            possible = [name for name, kind in LIKELIHOODS.items() if kind.is_gamma_poisson]
            raise NotImplementedError(
                f"Correlations are of samples of the likelihoods {', '.join(possible)} of counts, "
                f"and not of {self.module.gene_likelihood!r}. Correlate "
                "get_normalized_expression() instead."
            )
        return super().get_feature_correlation_matrix(*args, **kwargs)

    def get_importance_weights(self, *args: Any, **kwargs: Any) -> Any:
        """Return weights for differential expression, as scvi-tools does.

        Parameters
        ----------
        *args, **kwargs
            See :meth:`scvi.model.SCVI.get_importance_weights`.

        Returns
        -------
        One weight per draw of z, ``(n_draws,)``, which sum to 1.

        Raises
        ------
        NotImplementedError
            If the prior is not standard normal, which scvi-tools takes for granted.

        Examples
        --------
        scvi-tools asks for them where it is told to, here to choose 50 draws of 20 cells:

        >>> import betavi
        >>> import numpy as np
        >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> options = {"n_samples_overall": 50, "weights": "importance", "return_numpy": True}
        >>> model.get_normalized_expression(indices=np.arange(20), **options).shape
        (50, 20)
        """
        if not isinstance(self.module.prior, StandardNormal):
            raise NotImplementedError(
                "scvi-tools' importance weights take a standard normal prior for granted, and this "
                f"model has {self.module.options.prior!r}. Use weights='uniform'."
            )
        return super().get_importance_weights(*args, **kwargs)

    @torch.inference_mode()
    def get_likelihood_parameters(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples: int | None = 1,
        give_mean: bool | None = False,
        batch_size: int | None = None,
        dataloader: Iterator[dict[str, Tensor | None]] | None = None,
        **data_loader_kwargs: Any,
    ) -> dict[str, np.ndarray]:
        """Return the parameters of p(x given z), for every likelihood there is.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, **data_loader_kwargs
            Which cells, and how many at once.
        n_samples
            Number of posterior draws per cell.
        give_mean
            Average over the draws.

        Returns
        -------
        ``mean``, ``dispersions`` and ``dropout`` where the likelihood has them, each
        ``(n_cells, n_genes)`` or ``(n_samples, n_cells, n_genes)``. The mean of a zero-inflated
        likelihood is that before inflation, as in SCVI.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> sorted(model.get_likelihood_parameters())
        ['dispersions', 'dropout', 'mean']
        """
        if dataloader is None:
            adata = self._validate_anndata(adata)
            dataloader = self._make_data_loader(
                adata=adata, indices=indices, batch_size=batch_size, **data_loader_kwargs
            )
        n_samples = n_samples or 1
        collected: dict[str, list[np.ndarray]] = {}
        for tensors in dataloader:
            _, outputs = self.module.forward(
                tensors, inference_kwargs={"n_samples": n_samples}, compute_loss=False
            )
            parameters = self.module.likelihoods[COUNTS].parameters_of(outputs["px"])
            for name, value in parameters.items():
                collected.setdefault(name, []).append(value.cpu().numpy())
        whole = {name: np.concatenate(parts, axis=-2) for name, parts in collected.items()}
        if give_mean and n_samples > 1:
            return {name: value.mean(axis=0) for name, value in whole.items()}
        return whole
