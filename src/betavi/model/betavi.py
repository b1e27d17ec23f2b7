"""BetaVI: a variational autoencoder of one modality."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.model.base import VAEMixin

from betavi.model.collapse.diagnose import diagnose
from betavi.model.collapse.rate_distortion import rate_distortion, suggest_beta
from betavi.model.collapse.rescue import rescue
from betavi.model.core import training
from betavi.model.core._transition import Transition, wrap_getters
from betavi.model.core.adapter import OneAssay
from betavi.model.core.beta import takes_beta
from betavi.model.core.density import latent_density
from betavi.model.core.latent import get_latent_representation
from betavi.model.core.library_size import library_prior
from betavi.model.denoising.cross_validate import CrossValidateMixin
from betavi.model.denoising.denoise import DenoiseMixin
from betavi.model.denoising.false_signals import FalseSignalsMixin
from betavi.model.expression import count_score, evaluate, normalized, samples
from betavi.model.expression.differential import differential_expression
from betavi.model.expression.importance import get_importance_weights
from betavi.model.generation.decode import DecodeMixin
from betavi.model.generation.holes import HolesMixin
from betavi.model.generation.interpolate import InterpolateMixin
from betavi.model.reference import minify, query
from betavi.model.setup.anndata import setup_anndata
from betavi.model.setup.check_counts import check_is_anndata
from betavi.model.setup.messages import warn
from betavi.module import BetaVAE

USUAL_VISITS, USUAL_EPOCHS = 300_000, (8, 30)
"""Cells that training sees in all, and how often it may see each: of a learning rate that rises and
falls within the run. ``python -m benchmarks.time_to_quality`` compares it with SCVI's."""


@wrap_getters
class BetaVI(
    CrossValidateMixin,
    DenoiseMixin,
    FalseSignalsMixin,
    HolesMixin[AnnData],
    InterpolateMixin[AnnData],
    DecodeMixin,
    Transition,
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

    adapter = OneAssay()
    _module_cls = BetaVAE
    _LATENT_QZM_KEY = "betavi_latent_qzm"
    _LATENT_QZV_KEY = "betavi_latent_qzv"

    # setting up, training, files
    setup_anndata = classmethod(setup_anndata)
    train = training.train
    sibling = training.sibling
    load_query_data = classmethod(query.load_query_data)
    prepare_query_anndata = staticmethod(query.prepare_query_anndata)
    minify_adata = minify.minify_adata
    _update_adata_and_manager_post_minification = minify.read_minified_adata

    # the latent space
    get_latent_representation = get_latent_representation
    latent_density = latent_density
    get_aggregated_posterior = takes_beta(VAEMixin.get_aggregated_posterior)
    differential_abundance = takes_beta(VAEMixin.differential_abundance)

    # expression
    get_normalized_expression = normalized.get_normalized_expression
    differential_expression = differential_expression
    posterior_predictive_sample = samples.posterior_predictive_sample
    get_feature_correlation_matrix = samples.get_feature_correlation_matrix
    get_likelihood_parameters = evaluate.get_likelihood_parameters
    get_latent_library_size = evaluate.get_latent_library_size
    get_elbo = evaluate.get_elbo
    get_marginal_ll = evaluate.get_marginal_ll
    get_reconstruction_error = evaluate.get_reconstruction_error
    get_importance_weights = get_importance_weights
    score_counts = count_score.score_counts
    raw_counts = count_score.raw_counts

    # collapse and the choice of β
    diagnose = diagnose
    rescue = rescue
    rate_distortion = rate_distortion
    suggest_beta = suggest_beta

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
            means, variances = library_prior(self.adata_manager, stats.n_batch)
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

    def default_epochs(self, n_cells: int) -> int:
        """Return 30 epochs up to 10,000 cells, fewer for more cells, and at least 8."""
        return int(np.clip(USUAL_VISITS // n_cells, *USUAL_EPOCHS))
