"""BetaVI: a variational autoencoder of one modality."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.model.base import EmbeddingMixin

from betavi.data import DataSplitter, Rows
from betavi.model.collapse.diagnose import DiagnoseMixin
from betavi.model.collapse.rate_distortion import RateDistortionMixin
from betavi.model.collapse.rescue import RescueMixin
from betavi.model.core.beta import checked_at_any_beta
from betavi.model.denoising.cross_validate import CrossValidateMixin
from betavi.model.denoising.denoise import DenoiseMixin
from betavi.model.denoising.false_signals import FalseSignalsMixin
from betavi.model.expression.count_score import CountScoreMixin
from betavi.model.expression.evaluate import EvaluateMixin
from betavi.model.generation.decode import DecodeMixin
from betavi.model.generation.holes import HolesMixin
from betavi.model.generation.interpolate import InterpolateMixin
from betavi.model.reference.minify import MinifyMixin
from betavi.model.reference.query import QueryMixin
from betavi.model.setup.anndata import SetupMixin
from betavi.model.setup.check_counts import check_is_anndata
from betavi.model.setup.messages import warn
from betavi.module import BetaVAE
from betavi.train import TrainingPlan, TrainRunner

USUAL_VISITS, USUAL_EPOCHS = 300_000, (8, 30)
"""Cells that training sees in all, and how often it may see each: of a learning rate that rises and
falls within the run. ``python -m benchmarks.time_to_quality`` compares it with SCVI's."""

SMALLEST_LOG_LIBRARY_VARIANCE = 1e-4
"""Of a batch whose cells all have the same size, or that has one cell."""


@checked_at_any_beta
class BetaVI(
    CountScoreMixin,
    CrossValidateMixin,
    DenoiseMixin,
    DiagnoseMixin,
    EmbeddingMixin,
    EvaluateMixin,
    FalseSignalsMixin,
    HolesMixin[AnnData],
    InterpolateMixin[AnnData],
    DecodeMixin,
    MinifyMixin,
    QueryMixin,
    RateDistortionMixin,
    RescueMixin,
    SetupMixin,
):
    """A variational autoencoder of single-cell counts, in the place of :class:`scvi.model.SCVI`.

    Parameters
    ----------
    adata
        Registered with :meth:`setup_anndata`. Without it, and without ``registry``, the module is
        made when :meth:`train` is given a ``datamodule``.
    registry
        The registry of a datamodule.
    n_hidden
        Width of the hidden layers.
    n_latent
        Number of latent dimensions.
    n_layers
        Number of hidden layers of encoder and decoder.
    dropout_rate
        Share of hidden units dropped in the encoder while training.
    dispersion
        ``"gene"``, ``"gene-batch"``, ``"gene-label"`` or ``"gene-cell"``: a key of
        :data:`betavi.likelihoods.DISPERSIONS`.
    gene_likelihood
        ``"zinb"``, ``"nb"``, ``"poisson"``, ``"lognormal"``, ``"normal"`` or ``"bernoulli"``: a key
        of :data:`betavi.likelihoods.LIKELIHOODS`.
    use_observed_lib_size
        Take each cell's total as its library size instead of inferring it.
    latent_distribution
        ``"normal"``, ``"ln"`` or ``"deterministic"``: a key of :data:`betavi.nn.LATENTS`.
    prior
        ``"standard_normal"``, ``"vamp"`` or ``"mixture"``: a key of :data:`betavi.nn.PRIORS`.
        ``n_components`` says of how many components the latter two are.
    beta
        The weight of the rate against the distortion. A pair ``(low, high)`` trains every β in
        between at once, and every getter then takes ``beta=``.
    **kwargs
        Further fields of :class:`betavi.nn.Architecture` and :class:`betavi.module.Options`.

    Raises
    ------
    ValueError
        If a word is not in its table, or a number makes no model.

    References
    ----------
    Kingma & Welling (2014), Auto-encoding variational Bayes. Higgins et al. (2017), β-VAE. Bae et
    al. (2023), Multi-rate VAE. Lopez et al. (2018), Deep generative
    modeling for single-cell transcriptomics.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=50)
    >>> betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    >>> model = betavi.BetaVI(adata, n_latent=5)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> adata.obsm["X_betavi"] = model.get_latent_representation()
    >>> adata.obsm["X_betavi"].shape
    (200, 5)
    """

    _module_cls = BetaVAE
    _data_splitter_cls = DataSplitter
    _train_runner_cls = TrainRunner
    _training_plan_cls = TrainingPlan
    _LATENT_QZM_KEY = "betavi_latent_qzm"
    _LATENT_QZV_KEY = "betavi_latent_qzv"

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        dispersion: str = "gene",
        gene_likelihood: str = "zinb",
        use_observed_lib_size: bool = True,
        latent_distribution: str = "normal",
        prior: str = "standard_normal",
        beta: float | tuple[float, float] = 1.0,
        **kwargs: Any,
    ) -> None:
        if adata is not None:
            check_is_anndata(adata)
        wait = adata is None and registry is None
        # scvi-tools lets only its own classes start from nothing; an empty registry is nothing
        super().__init__(adata, {"field_registries": {}} if wait else registry)
        self._module_init_on_train = wait
        self._module_kwargs = {
            "n_hidden": n_hidden,
            "n_latent": n_latent,
            "n_layers": n_layers,
            "dropout_rate": dropout_rate,
            "dispersion": dispersion,
            "gene_likelihood": gene_likelihood,
            "use_observed_lib_size": use_observed_lib_size,
            "latent_distribution": latent_distribution,
            "prior": prior,
            "beta": beta,
            **kwargs,
        }
        shown = {k: v for k, v in self._module_kwargs.items() if k not in kwargs}
        self._model_summary_string = "BetaVI model with the following parameters: \n" + ", ".join(
            f"{name}: {value}" for name, value in shown.items()
        )
        if wait:
            self.module = None
            warn("Without adata the module is made when train(datamodule=...) is called.")
        else:
            self.module = self._make_module()
        self.init_params_ = self._get_init_params(locals())

    def _make_module(self) -> BetaVAE:
        stats = self.summary_stats
        covariates = self.registry_["field_registries"].get(REGISTRY_KEYS.CAT_COVS_KEY, {})
        use_size_factor = self.registry_["setup_args"].get("size_factor_key") is not None
        kwargs = dict(self._module_kwargs)
        if not (kwargs["use_observed_lib_size"] or use_size_factor):
            means, variances = self._library_prior(stats.n_batch)
            kwargs |= {"library_log_means": means, "library_log_vars": variances}
        module = self._module_cls(
            n_input=stats.n_vars,
            n_batch=stats.n_batch,
            n_labels=stats.n_labels,
            n_continuous_cov=stats.get("n_extra_continuous_covs", 0),
            n_cats_per_cov=covariates.get("state_registry", {}).get("n_cats_per_key"),
            use_size_factor_key=use_size_factor,
            **kwargs,
        )
        module.minified_data_type = self.minified_data_type
        return module

    def _usual_epochs(self, n_cells: int) -> int:
        return int(np.clip(USUAL_VISITS // n_cells, *USUAL_EPOCHS))

    def _library_prior(self, n_batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance of the log library size of each batch, ``(1, n_batch)``.

        A batch that the object has no cells of has mean 0 and variance 1.
        """
        totals = Rows(self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)).totals()
        batch = self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
        means, variances = np.zeros((1, n_batch)), np.ones((1, n_batch))
        for code in np.unique(batch):
            log_totals = np.log(totals[(batch == code) & (totals > 0)])
            if len(log_totals):
                means[0, code] = log_totals.mean()
                variances[0, code] = max(log_totals.var(), SMALLEST_LOG_LIBRARY_VARIANCE)
        return means, variances
