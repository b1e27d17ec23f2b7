"""Likelihoods p(x given z) of one modality, one file each.

To add a likelihood, write its file and add a line to :data:`LIKELIHOODS`. Contract tests,
documentation and error messages read that table.
"""

from __future__ import annotations

from betavi.data.start_values import Start
from betavi.likelihoods._base import Likelihood
from betavi.likelihoods.bernoulli import BernoulliLikelihood
from betavi.likelihoods.dispersion import DISPERSIONS, Dispersion, DispersionSizes
from betavi.likelihoods.lognormal import LogNormalLikelihood
from betavi.likelihoods.nb import NegativeBinomialLikelihood
from betavi.likelihoods.nb_mixture import NegativeBinomialMixtureLikelihood
from betavi.likelihoods.normal import NormalLikelihood
from betavi.likelihoods.poisson import PoissonLikelihood
from betavi.likelihoods.zinb import ZeroInflatedNegativeBinomialLikelihood

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "zinb": ZeroInflatedNegativeBinomialLikelihood,
    "nb": NegativeBinomialLikelihood,
    "poisson": PoissonLikelihood,
    "lognormal": LogNormalLikelihood,
    "normal": NormalLikelihood,
    "bernoulli": BernoulliLikelihood,
    "nb_mixture": NegativeBinomialMixtureLikelihood,
}
"""Likelihoods by name, ``gene_likelihood=``."""

__all__ = [
    "DISPERSIONS",
    "LIKELIHOODS",
    "Dispersion",
    "DispersionSizes",
    "Likelihood",
    "Start",
]
