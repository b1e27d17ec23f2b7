"""Likelihoods: p(x given z) of one modality, one file each.

To add one, write its file and add its line to :data:`LIKELIHOODS`: the contract tests, the
documentation and the error that lists the choices all read that table.
"""

from __future__ import annotations

from betavi.likelihoods._base import Likelihood
from betavi.likelihoods._dispersion import DISPERSIONS, Dispersion, DispersionSizes
from betavi.likelihoods._start import Start
from betavi.likelihoods.nb import NegativeBinomialLikelihood
from betavi.likelihoods.normal import NormalLikelihood
from betavi.likelihoods.poisson import PoissonLikelihood
from betavi.likelihoods.zinb import ZeroInflatedNegativeBinomialLikelihood

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "zinb": ZeroInflatedNegativeBinomialLikelihood,
    "nb": NegativeBinomialLikelihood,
    "poisson": PoissonLikelihood,
    "normal": NormalLikelihood,
}
"""Likelihoods by the name a user gives, ``gene_likelihood=``."""

__all__ = [
    "DISPERSIONS",
    "LIKELIHOODS",
    "Dispersion",
    "DispersionSizes",
    "Likelihood",
    "Start",
]
