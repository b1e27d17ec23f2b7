"""JointVI: one latent space for every assay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.model.base import VAEMixin

from betavi.model.collapse.diagnose import diagnose
from betavi.model.collapse.rate_distortion import rate_distortion, suggest_beta
from betavi.model.collapse.rescue import rescue
from betavi.model.core import training
from betavi.model.core._transition import Transition, wrap_getters
from betavi.model.core.adapter import ManyAssays
from betavi.model.core.beta import takes_beta
from betavi.model.core.density import latent_density
from betavi.model.core.latent import get_latent_representation
from betavi.model.core.library_size import typical_sizes
from betavi.model.denoising.joint_cross_validate import JointCrossValidateMixin
from betavi.model.denoising.joint_denoise import JointDenoiseMixin
from betavi.model.expression import count_score, evaluate, normalized, samples, translation
from betavi.model.expression.differential import differential_expression
from betavi.model.generation.holes import HolesMixin
from betavi.model.generation.interpolate import InterpolateMixin
from betavi.model.generation.joint_decode import JointDecodeMixin
from betavi.model.reference import minify, query
from betavi.model.setup.check_joint import check_fusion, check_is_set_up, is_weight
from betavi.model.setup.mudata import refuse_anndata, setup_mudata
from betavi.module import CovariateSizes, Modality, MultimodalVAE, Options
from betavi.module.single import LAYER_NORM, split_options
from betavi.nn import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping


@wrap_getters
class JointVI(
    HolesMixin[MuData],
    InterpolateMixin[MuData],
    JointCrossValidateMixin,
    JointDecodeMixin,
    JointDenoiseMixin,
    Transition,
):
    """A variational autoencoder of several assays, of which cells may lack some.

    Every modality has an expert, an encoder that says alone what it knows of a cell, and a decoder.
    The experts a cell has are fused into its posterior.

    Parameters
    ----------
    adata
        Registered with :meth:`setup_mudata`.
    registry
        That of a saved model, in the place of an object.
    n_hidden, n_layers, dropout_rate
        Of every network, see :class:`betavi.nn.Architecture`.
    n_latent
        Number of latent dimensions.
    fusion
        ``"poe"``, ``"moe"``, ``"mopoe"`` or ``"mvtcae"``: a key of :data:`betavi.nn.FUSIONS`.
    dispersion
        A key of :data:`betavi.likelihoods.DISPERSIONS`.
    latent_distribution, prior, beta
        See :class:`betavi.BetaVI`.
    modality_weights
        By modality, the weight of its distortion in the loss; 1 of those that are not named, with
        which distortion and rate in the loss of every fusion but ``"mvtcae"`` are a bound of the
        likelihood of everything that was measured.
    **kwargs
        Further fields of :class:`betavi.nn.Architecture` and :class:`betavi.module.Options`.

    Raises
    ------
    TypeError
        If ``adata`` is no MuData.
    ValueError
        If a word is not in its table, or a number makes no model.

    References
    ----------
    Wu & Goodman (2018), Multimodal generative models for scalable weakly-supervised learning. Sutter
    et al. (2021), Generalized multimodal ELBO. Hwang et al. (2021), Multi-view representation
    learning via total correlation objective.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.simulate_multiome(n_cells=200, missing={"adt": 0.5})
    >>> likelihoods = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}
    >>> betavi.JointVI.setup_mudata(mdata, likelihoods)
    >>> model = betavi.JointVI(mdata, n_latent=5)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> mdata.obsm["X_jointvi"] = model.get_latent_representation()
    >>> mdata.obsm["X_jointvi"].shape
    (200, 5)
    """

    adapter = ManyAssays()
    _module_cls = MultimodalVAE

    # setting up, training, files
    setup_anndata = classmethod(refuse_anndata)
    setup_mudata = classmethod(setup_mudata)
    train = training.train
    sibling = training.sibling
    load_query_data = classmethod(query.load_query_data)
    prepare_query_mudata = staticmethod(query.prepare_query_mudata)
    minify_adata = minify.refuse_minify_adata
    minify_mudata = minify.minify_mudata

    # the latent space
    get_latent_representation = get_latent_representation
    latent_density = latent_density
    get_aggregated_posterior = takes_beta(VAEMixin.get_aggregated_posterior)
    differential_abundance = takes_beta(VAEMixin.differential_abundance)

    # expression
    get_normalized_expression = normalized.get_normalized_expression
    get_normalized_accessibility = normalized.get_normalized_accessibility
    get_protein_foreground_probability = normalized.get_protein_foreground_probability
    differential_expression = differential_expression
    posterior_predictive_sample = samples.posterior_predictive_sample
    get_feature_correlation_matrix = samples.get_feature_correlation_matrix
    get_likelihood_parameters = evaluate.get_likelihood_parameters
    get_elbo = evaluate.get_elbo
    get_marginal_ll = evaluate.get_marginal_ll
    get_reconstruction_error = evaluate.get_reconstruction_error
    score_counts = count_score.score_counts
    raw_counts = count_score.raw_counts
    translate = translation.translate
    predictability = translation.predictability

    # collapse and the choice of β
    diagnose = diagnose
    rescue = rescue
    rate_distortion = rate_distortion
    suggest_beta = suggest_beta

    def __init__(
        self,
        adata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        n_hidden: int = 128,
        n_latent: int = 20,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        fusion: str = "mvtcae",
        dispersion: str = "gene",
        latent_distribution: str = "normal",
        prior: str = "standard_normal",
        beta: float | tuple[float, float] = 1.0,
        modality_weights: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if adata is not None or registry is None:
            check_is_set_up(adata)
        super().__init__(adata, registry)
        check_fusion(fusion, len(self.modalities))
        named = {
            "n_hidden": n_hidden,
            "n_latent": n_latent,
            "n_layers": n_layers,
            "dropout_rate": dropout_rate,
            "fusion": fusion,
            "dispersion": dispersion,
            "latent_distribution": latent_distribution,
            "prior": prior,
            "beta": beta,
        }
        self._module_kwargs = named | {"modality_weights": modality_weights} | kwargs
        networks, options = split_options(named | kwargs)
        self.module = self._module_cls(
            self._modalities(dict(modality_weights or {})),
            self._sizes(),
            # cells that lack a modality would be in the statistics of batch normalisation
            Architecture(**LAYER_NORM | networks),
            Options(**options),
        )
        self.module.minified_data_type = self.minified_data_type
        self._model_summary_string = (
            f"JointVI model of {', '.join(self.modalities)} with the following parameters: \n"
            f"fusion: {fusion}, n_latent: {n_latent}, n_hidden: {n_hidden}, n_layers: {n_layers}, "
            f"dropout_rate: {dropout_rate}, dispersion: {dispersion}, prior: {prior}, beta: {beta}"
        )
        self.init_params_ = self._get_init_params(locals())

    def _modalities(self, weights: dict[str, float]) -> dict[str, Modality]:
        likelihoods = self.registry_["setup_args"]["likelihoods"]
        if unknown := sorted(set(weights) - set(likelihoods)):
            raise ValueError(
                f"modality_weights names {unknown[0]!r}; there is {', '.join(likelihoods)}."
            )
        if wrong := [name for name, weight in weights.items() if not is_weight(weight)]:
            raise ValueError(
                f"The weight of {wrong[0]!r} is no positive number. To leave a modality out, do not name "
                "it in setup_mudata(likelihoods=...)."
            )
        return {
            name: Modality(
                self.summary_stats[f"n_{name}"],
                likelihood,
                weight=weights.get(name, 1.0),
                typical=self._typical_sizes(name),
            )
            for name, likelihood in likelihoods.items()
        }

    def _typical_sizes(self, name: str) -> tuple[np.ndarray, np.ndarray, int]:
        """Return what is known of sizes, or room for what a saved model knows."""
        if self.adata_manager is not None:
            return typical_sizes(self.adata_manager, name)
        nothing = np.full(self.summary_stats.n_batch, np.nan)
        return nothing, nothing, 0

    def _sizes(self) -> CovariateSizes:
        stats = self.summary_stats
        covariates = self.registry_["field_registries"].get(REGISTRY_KEYS.CAT_COVS_KEY, {})
        numbers = covariates.get("state_registry", {}).get("n_cats_per_key")
        return CovariateSizes(
            stats.n_batch,
            stats.n_labels,
            stats.get("n_extra_continuous_covs", 0),
            tuple(numbers if numbers is not None else ()),
        )
