"""BetaVI: a model of one modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi.model.base import VAEMixin

from betavi._tables import check_flag
from betavi.data import COUNTS, format_in
from betavi.model.collapse.diagnose import diagnose
from betavi.model.collapse.rate_distortion import rate_distortion, suggest_beta
from betavi.model.collapse.rescue import rescue
from betavi.model.core import training
from betavi.model.core.adapter import AnnDataAdapter
from betavi.model.core.beta import takes_beta
from betavi.model.core.density import latent_density
from betavi.model.core.latent import get_latent_representation
from betavi.model.core.latent_model import LatentModel
from betavi.model.core.library_size import library_prior
from betavi.model.denoising.cross_validate import cross_validate_denoising
from betavi.model.denoising.denoise import denoise
from betavi.model.denoising.false_signals import check_false_signals
from betavi.model.dimensions.explain import explain_dimensions
from betavi.model.expression import count_score, evaluate, normalized, samples
from betavi.model.expression.differential import differential_expression
from betavi.model.expression.importance import get_importance_weights
from betavi.model.generation.generate import generate
from betavi.model.generation.holes import find_holes
from betavi.model.generation.interpolate import archetype, interpolate
from betavi.model.io import loading, saving
from betavi.model.reference import minify, prepare_query, query
from betavi.model.report.report import report
from betavi.model.setup.anndata import setup_anndata
from betavi.model.setup.arguments import check_surroundings
from betavi.model.setup.check_counts import check_is_anndata
from betavi.model.setup.check_images import check_image_likelihood
from betavi.model.setup.messages import warn
from betavi.model.support.support import support
from betavi.model.support.transfer import transfer_labels
from betavi.module import BetaVAE

if TYPE_CHECKING:
    from anndata import AnnData


class BetaVI(LatentModel):
    """β-VAE of single-cell counts. It replaces :class:`scvi.model.SCVI` in a script.

    Parameters
    ----------
    adata
        Data registered with :meth:`setup_anndata`. Without ``adata`` and ``registry``, the networks
        are made when :meth:`train` gets a ``datamodule``.
    registry
        Registry of a datamodule.
    n_hidden
        Width of the hidden layers.
    n_latent
        Number of latent dimensions.
    n_layers
        Number of hidden layers of the encoder, and of the decoder.
    dropout_rate
        Share of the encoder's hidden units that are dropped in each training step.
    dispersion
        ``"gene"``, ``"gene-batch"``, ``"gene-label"`` or ``"gene-cell"``, a key of
        :data:`betavi.likelihoods.DISPERSIONS`.
    gene_likelihood
        For images, a key of :data:`betavi.likelihoods.IMAGE_LIKELIHOODS`, such as
        ``"band_normal"``. For counts, ``"zinb"``, ``"nb"``, ``"poisson"``, ``"lognormal"``, ``"normal"`` or ``"bernoulli"``, a key
        of :data:`betavi.likelihoods.LIKELIHOODS`.
    use_observed_lib_size
        Use each cell's total count as its library size. If False, infer the library size.
    latent_distribution
        ``"normal"``, ``"ln"`` or ``"deterministic"``, a key of :data:`betavi.nn.LATENTS`.
    prior
        ``"standard_normal"``, ``"vamp"``, ``"mixture"`` or ``"independent"``, a key of
        :data:`betavi.nn.PRIORS`.
        ``"vamp"`` and ``"mixture"`` have ``n_components`` components.
    beta
        Weight of the rate (KL divergence from the prior) relative to the distortion (negative
        log-likelihood). A pair ``(low, high)`` trains one model for all β in the range. Methods of
        this model then take ``beta=``.
    **kwargs
        Further fields of :class:`betavi.nn.Architecture` and :class:`betavi.module.Options`, such as
        ``decoder="additive"``, with which no two latent dimensions interact.

    Raises
    ------
    ValueError
        If an option has an unknown value, or a number is out of range.

    References
    ----------
    Kingma & Welling (2014), Auto-encoding variational Bayes. Higgins et al. (2017), β-VAE. Bae et
    al. (2023), Multi-rate VAE. Lopez et al. (2018), Deep generative modeling for single-cell
    transcriptomics.

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

    adapter = AnnDataAdapter()
    _module_cls = BetaVAE
    _LATENT_QZM_KEY = "betavi_latent_qzm"
    _LATENT_QZV_KEY = "betavi_latent_qzv"

    # setup, training, query mapping, minified objects
    setup_anndata = classmethod(setup_anndata)
    train = training.train
    default_epochs = training.default_epochs
    sibling = training.sibling
    load_query_data = classmethod(query.load_query_data)
    prepare_query_anndata = staticmethod(prepare_query.prepare_query_anndata)
    prepare_query_mudata = staticmethod(prepare_query.refuse_prepare_query_mudata)
    minify_adata = minify.minify_adata
    _update_adata_and_manager_post_minification = minify.read_minified

    # one page on trust
    report = report

    # files
    save = saving.save
    load = classmethod(loading.load)
    load_registry = staticmethod(loading.load_registry)
    view_setup_args = staticmethod(loading.view_setup_args)
    convert_legacy_save = classmethod(saving.convert_legacy_save)

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

    # denoising
    denoise = denoise
    cross_validate_denoising = cross_validate_denoising
    check_false_signals = check_false_signals
    # collapse and the choice of β
    diagnose = diagnose
    rescue = rescue
    rate_distortion = rate_distortion
    suggest_beta = suggest_beta
    explain_dimensions = explain_dimensions
    # outlier scores, labels, generated cells, paths and holes
    support = support
    transfer_labels = transfer_labels
    generate = generate
    interpolate = interpolate
    archetype = archetype
    find_holes = find_holes

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
        # only scvi-tools' own classes may start without data; others need an empty registry
        check_surroundings()
        check_flag("use_observed_lib_size", use_observed_lib_size)
        super().__init__(adata, {"field_registries": {}} if wait else registry)
        self._module_init_on_train = wait
        named = {
            "n_hidden": n_hidden, "n_latent": n_latent, "n_layers": n_layers,
            "dropout_rate": dropout_rate, "dispersion": dispersion,
            "gene_likelihood": gene_likelihood, "use_observed_lib_size": use_observed_lib_size,
            "latent_distribution": latent_distribution, "prior": prior, "beta": beta,
        }  # fmt: skip
        self._module_kwargs = named | kwargs
        self._model_summary_string = "BetaVI model with the following parameters: \n" + ", ".join(
            f"{name}: {value}" for name, value in named.items()
        )
        if wait:
            self.module = None  # type: ignore[assignment]  # train(datamodule=...) makes it
            warn(
                "The model has no `adata`, so its networks are made by train(datamodule=...). "
                "Pass `adata` to make the networks now."
            )
        else:
            self.module = self._make_module()
        self.init_params_ = self._get_init_params(locals())

    def _make_module(self) -> BetaVAE:
        use_size_factor = self.registry_["setup_args"].get("size_factor_key") is not None
        n_batch, n_labels, n_continuous, n_categories = self.covariate_sizes
        kwargs = dict(self._module_kwargs)
        image = format_in(self.registry_, COUNTS)
        if image is None and not (kwargs["use_observed_lib_size"] or use_size_factor):
            means, variances = library_prior(self.adata_manager, n_batch)
            kwargs |= {"library_log_means": means, "library_log_vars": variances}
        if image is not None:
            check_image_likelihood(COUNTS, kwargs["gene_likelihood"], image)
        module = self._module_cls(
            n_input=len(self.features(COUNTS)) if image else self.summary_stats.n_vars, image=image,
            n_batch=n_batch, n_labels=n_labels,
            n_continuous_cov=n_continuous, n_cats_per_cov=n_categories,
            use_size_factor_key=use_size_factor, **kwargs,
        )  # fmt: skip
        module.minified_data_type = self.minified_data_type
        return module
