"""EffectVI: a model of cells with and without perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi.model.base import VAEMixin

from betavi.data.conditions import Conditions
from betavi.model.collapse.diagnose import diagnose
from betavi.model.core import training
from betavi.model.core.adapter import AnnDataAdapter
from betavi.model.core.beta import takes_beta
from betavi.model.core.density import latent_density
from betavi.model.core.latent import get_latent_representation
from betavi.model.core.latent_model import LatentModel
from betavi.model.denoising.denoise import denoise
from betavi.model.dimensions.explain import explain_dimensions
from betavi.model.effects.dose_response import dose_response
from betavi.model.effects.evaluate import evaluate
from betavi.model.effects.interactions import interactions
from betavi.model.effects.predict import predict
from betavi.model.effects.state import state_information
from betavi.model.expression import count_score, normalized, samples
from betavi.model.expression import evaluate as likelihoods
from betavi.model.generation.generate import generate
from betavi.model.io import loading, saving
from betavi.model.reference import minify, prepare_query, query
from betavi.model.report.report import report
from betavi.model.setup.arguments import check_surroundings
from betavi.model.setup.check_counts import check_is_anndata
from betavi.model.setup.perturbations import setup_anndata
from betavi.model.support.support import support
from betavi.module.effects import EffectVAE

if TYPE_CHECKING:
    from anndata import AnnData


class EffectVI(LatentModel):
    """β-VAE of a perturbation screen: states of cells, and effects on log rates that add up.

    The log rate of a gene is the decoded state of the cell, plus the effect of each of its
    perturbations, plus an interaction for each measured pair. With doses, effects follow a Hill curve.
    With contexts, they deviate in each context. :meth:`train` first estimates the effects from sums of
    the counts of training cells, with shrinkage. It then trains the states. The encoder reads counts
    without effects, so that the states hardly depend on the condition.

    Parameters
    ----------
    adata
        Data registered with :meth:`setup_anndata`.
    registry
        Registry of a :class:`betavi.data.StoreDataModule`, in place of ``adata``.
    n_hidden
        Width of the hidden layers.
    n_latent
        Number of latent dimensions.
    n_layers
        Number of hidden layers of the encoder, and of the decoder.
    dropout_rate
        Share of the encoder's hidden units that are dropped in each training step.
    dispersion
        ``"gene"``, ``"gene-batch"`` or ``"gene-label"``.
    gene_likelihood
        ``"nb"``, ``"zinb"`` or ``"poisson"``. The library size is the total count of each cell.
    prior
        ``"standard_normal"``, ``"vamp"``, ``"mixture"`` or ``"independent"``, a key of
        :data:`betavi.nn.PRIORS`.
    beta
        Weight of the rate (KL divergence from the prior) relative to the distortion (negative
        log-likelihood). A pair ``(low, high)`` trains one model for all β in the range. The effects do
        not depend on β.
    **kwargs
        Further fields of :class:`betavi.nn.Architecture` and :class:`betavi.module.Options`, such as
        ``decoder="additive"``, with which no two latent dimensions interact.

    Raises
    ------
    ValueError
        If an option has an unknown value, or a number is out of range. Also for a likelihood or a
        dispersion without effects, and for an inferred library size.

    References
    ----------
    Kingma & Welling (2014), Auto-encoding variational Bayes. Higgins et al. (2017), β-VAE. Minka
    (2001), Expectation propagation for approximate Bayesian inference. Stephens (2017), False discovery
    rates: a new deal. Ahlmann-Eltze et al. (2025), Deep-learning-based gene perturbation effect
    prediction does not yet outperform simple linear baselines.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_perturbations(n_cells=400, n_perturbations=3)
    >>> betavi.EffectVI.setup_anndata(adata, perturbation_key="perturbation")
    >>> model = betavi.EffectVI(adata, n_latent=5)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.predict("P0+P2").layers["lfc"].shape
    (1, 500)
    """

    module: EffectVAE
    adapter = AnnDataAdapter()
    _module_cls = EffectVAE

    # setup, training, query mapping
    setup_anndata = classmethod(setup_anndata)
    train = training.train
    default_epochs = training.default_epochs
    sibling = training.sibling
    load_query_data = classmethod(query.load_query_data)
    prepare_query_anndata = staticmethod(prepare_query.prepare_query_anndata)
    prepare_query_mudata = staticmethod(prepare_query.refuse_prepare_query_mudata)
    minify_adata = minify.refuse_minify

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

    # expression
    get_normalized_expression = normalized.get_normalized_expression
    posterior_predictive_sample = samples.posterior_predictive_sample
    get_elbo = likelihoods.get_elbo
    get_marginal_ll = likelihoods.get_marginal_ll
    get_reconstruction_error = likelihoods.get_reconstruction_error
    score_counts = count_score.score_counts
    raw_counts = count_score.raw_counts

    # denoising, diagnosis, outlier scores, generated cells
    denoise = denoise
    diagnose = diagnose
    explain_dimensions = explain_dimensions
    support = support
    generate = generate

    # effects
    predict = predict
    evaluate = evaluate
    dose_response = dose_response
    interactions = interactions
    state_information = state_information

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        dispersion: str = "gene",
        gene_likelihood: str = "nb",
        prior: str = "standard_normal",
        beta: float | tuple[float, float] = 1.0,
        **kwargs: Any,
    ) -> None:
        if adata is not None:
            check_is_anndata(adata)
        check_surroundings()
        if not kwargs.get("use_observed_lib_size", True):
            raise ValueError(
                "EffectVI reads the total count of each cell as its library size. Leave out "
                "use_observed_lib_size=False."
            )
        super().__init__(adata, registry)
        named = {
            "n_hidden": n_hidden, "n_latent": n_latent, "n_layers": n_layers,
            "dropout_rate": dropout_rate, "dispersion": dispersion,
            "gene_likelihood": gene_likelihood, "prior": prior, "beta": beta,
        }  # fmt: skip
        self._module_kwargs = named | kwargs
        self._model_summary_string = "EffectVI model with the following parameters: \n" + ", ".join(
            f"{name}: {value}" for name, value in named.items()
        )
        n_batch, n_labels, n_continuous, n_categories = self.covariate_sizes
        self.module = self._module_cls(
            self.conditions, n_input=self.summary_stats.n_vars, n_batch=n_batch, n_labels=n_labels,
            n_continuous_cov=n_continuous, n_cats_per_cov=n_categories, **self._module_kwargs,
        )  # fmt: skip
        self.init_params_ = self._get_init_params(locals())

    @property
    def conditions(self) -> Conditions:
        """Names and codes of the registered conditions."""
        return Conditions.of_registry(self.registry_)
