"""EffectVI: a model of cells with and without perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
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
from betavi.model.effects.dose_response import dose_response
from betavi.model.effects.evaluate import evaluate
from betavi.model.effects.predict import predict
from betavi.model.expression import evaluate as likelihoods
from betavi.model.expression import normalized, samples
from betavi.model.generation.generate import generate
from betavi.model.io import loading, saving
from betavi.model.reference import query
from betavi.model.setup.arguments import check_surroundings
from betavi.model.setup.check_counts import check_is_anndata
from betavi.model.setup.perturbations import setup_anndata
from betavi.model.support.support import support
from betavi.module.effects import EffectVAE

if TYPE_CHECKING:
    from anndata import AnnData

TRAINING_CELLS, EPOCHS = 300_000, (8, 30)
"""Default length of training: that of BetaVI."""


class EffectVI(LatentModel):
    """β-VAE of a perturbation screen: states of cells, and effects on log rates that add up.

    The log rate of a gene is the decoded state of the cell, plus the effect of each of its
    perturbations, plus an interaction for each measured pair. Effects and interactions are estimated
    with shrinkage. Their posterior has a mean and a variance for each gene.
    """

    module: EffectVAE
    adapter = AnnDataAdapter()
    _module_cls = EffectVAE

    # setup, training, query mapping
    setup_anndata = classmethod(setup_anndata)
    train = training.train
    sibling = training.sibling
    load_query_data = classmethod(query.load_query_data)
    prepare_query_anndata = staticmethod(query.prepare_query_anndata)

    # files
    save = saving.save
    load = classmethod(loading.load)
    load_registry = staticmethod(loading.load_registry)
    view_setup_args = staticmethod(loading.view_setup_args)

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

    # denoising, diagnosis, outlier scores, generated cells
    denoise = denoise
    diagnose = diagnose
    support = support
    generate = generate

    # effects
    predict = predict
    evaluate = evaluate
    dose_response = dose_response

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
        beta: float = 1.0,
        **kwargs: Any,
    ) -> None:
        if adata is not None:
            check_is_anndata(adata)
        check_surroundings()
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

    def default_epochs(self, n_cells: int) -> int:
        """Return 30 epochs for up to 10,000 cells, fewer for more cells, and at least 8."""
        return int(np.clip(TRAINING_CELLS // n_cells, *EPOCHS))
