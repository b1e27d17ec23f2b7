"""JointVI: a model of several modalities with one latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi.model.base import VAEMixin

from betavi._tables import check_mapping
from betavi.data import format_in
from betavi.model.collapse.diagnose import diagnose
from betavi.model.collapse.rate_distortion import rate_distortion, suggest_beta
from betavi.model.collapse.rescue import rescue
from betavi.model.core import training
from betavi.model.core.adapter import MuDataAdapter
from betavi.model.core.beta import takes_beta
from betavi.model.core.density import latent_density
from betavi.model.core.latent import get_latent_representation
from betavi.model.core.latent_model import LatentModel
from betavi.model.core.library_size import typical_sizes
from betavi.model.denoising.cross_validate import cross_validate_denoising
from betavi.model.denoising.denoise import denoise
from betavi.model.denoising.false_signals import check_false_signals
from betavi.model.dimensions.explain import explain_dimensions
from betavi.model.expression import count_score, evaluate, normalized, samples, translation
from betavi.model.expression.differential import differential_expression
from betavi.model.generation.generate import generate
from betavi.model.generation.holes import find_holes
from betavi.model.generation.interpolate import archetype, interpolate
from betavi.model.io import loading, saving
from betavi.model.reference import minify, prepare_query, query
from betavi.model.report.report import report
from betavi.model.setup.arguments import check_surroundings
from betavi.model.setup.check_mudata import check_fusion, check_is_set_up, is_weight
from betavi.model.setup.mudata import refuse_anndata, setup_mudata
from betavi.model.support.support import support
from betavi.model.support.transfer import transfer_labels
from betavi.module import Modality, MultimodalVAE, Options
from betavi.module.single import LAYER_NORM, split_options
from betavi.nn import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData


class JointVI(LatentModel):
    """β-VAE of several modalities. Cells may lack some modalities.

    Each modality has an encoder and a decoder. The encoder infers an expert: the posterior from
    this modality alone. The experts of a cell are fused into the posterior of the cell.

    Parameters
    ----------
    adata
        Data registered with :meth:`setup_mudata`.
    registry
        Registry of a saved model, in place of ``adata``.
    n_hidden, n_layers, dropout_rate
        Options of every network, see :class:`betavi.nn.Architecture`.
    n_latent
        Number of latent dimensions.
    fusion
        ``"poe"``, ``"moe"``, ``"mopoe"`` or ``"mvtcae"``, a key of :data:`betavi.nn.FUSIONS`.
    dispersion, latent_distribution, prior, beta
        See :class:`betavi.BetaVI`.
    modality_weights
        Weight of each modality's distortion (negative log-likelihood) in the loss, by name.
        Modalities that are not named have weight 1. If all weights are 1, the negative sum of
        distortion and rate (KL divergence from the prior) is a lower bound of the log-likelihood of
        all measurements. With ``"mvtcae"``, this does not hold.
    **kwargs
        Further fields of :class:`betavi.nn.Architecture` and :class:`betavi.module.Options`, such as
        ``decoder="additive"``, with which no two latent dimensions interact.

    Raises
    ------
    TypeError
        If ``adata`` is not a MuData.
    ValueError
        If an option has an unknown value, or a number is out of range.

    References
    ----------
    Wu & Goodman (2018), Multimodal generative models for scalable weakly-supervised learning. Sutter
    et al. (2021), Generalized multimodal ELBO. Hwang et al. (2021), Multi-view representation
    learning via total correlation objective. Lopez et al. (2018), Deep generative modeling for
    single-cell transcriptomics.

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

    adapter = MuDataAdapter()
    _module_cls = MultimodalVAE

    # setup, training, query mapping, minified objects
    setup_anndata = classmethod(refuse_anndata)
    setup_mudata = classmethod(setup_mudata)
    train = training.train
    sibling = training.sibling
    default_epochs = training.joint_epochs
    load_query_data = classmethod(query.load_query_data)
    prepare_query_anndata = staticmethod(prepare_query.refuse_prepare_query_anndata)
    prepare_query_mudata = staticmethod(prepare_query.prepare_query_mudata)
    minify_adata = minify.refuse_minify_adata
    minify_mudata = minify.minify_mudata

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
        check_surroundings()
        super().__init__(adata, registry)
        check_fusion(fusion, len(self.modalities))
        named = {
            "n_hidden": n_hidden, "n_latent": n_latent, "n_layers": n_layers,
            "dropout_rate": dropout_rate, "fusion": fusion, "dispersion": dispersion,
            "latent_distribution": latent_distribution, "prior": prior, "beta": beta,
        }  # fmt: skip
        self._module_kwargs = named | {"modality_weights": modality_weights} | kwargs
        networks, options = split_options(named | kwargs)
        # batch normalisation would include cells that lack a modality in its statistics
        architecture = Architecture(**LAYER_NORM | networks)
        if modality_weights is not None:
            check_mapping("modality_weights", modality_weights)
        parts = self._module_modalities(dict(modality_weights or {}))
        sizes = self.covariate_sizes
        self.module = self._module_cls(parts, sizes, architecture, Options(**options))
        self.module.minified_data_type = self.minified_data_type
        self._model_summary_string = (
            f"JointVI model of {', '.join(self.modalities)} with the following parameters: \n"
            f"fusion: {fusion}, n_latent: {n_latent}, n_hidden: {n_hidden}, n_layers: {n_layers}, "
            f"dropout_rate: {dropout_rate}, dispersion: {dispersion}, prior: {prior}, beta: {beta}"
        )
        self.init_params_ = self._get_init_params(locals())

    def _module_modalities(self, weights: dict[str, float]) -> dict[str, Modality]:
        likelihoods = self.registry_["setup_args"]["likelihoods"]
        if unknown := sorted(set(weights) - set(likelihoods)):
            raise ValueError(
                f"`modality_weights` names {unknown[0]!r}, which is not a modality of the model. "
                f"The modalities are {', '.join(map(repr, likelihoods))}."
            )
        if wrong := [name for name, weight in weights.items() if not is_weight(weight)]:
            raise ValueError(
                f"`modality_weights[{wrong[0]!r}]` must be a positive number, not "
                f"{weights[wrong[0]]!r}. To leave a modality out, do not name it in "
                "setup_mudata(likelihoods=...)."
            )
        # placeholders, which a saved model fills
        unknown_sizes = np.full(self.summary_stats.n_batch, np.nan)
        modalities = {}
        for name, likelihood in likelihoods.items():
            typical = unknown_sizes, unknown_sizes, 0
            if self.adata_manager is not None:
                typical = typical_sizes(self.adata_manager, name)
            weight, n_features = weights.get(name, 1.0), self.summary_stats[f"n_{name}"]
            image = format_in(self.registry_, name)
            modalities[name] = Modality(
                n_features, likelihood, weight=weight, typical=typical, image=image
            )
        return modalities
