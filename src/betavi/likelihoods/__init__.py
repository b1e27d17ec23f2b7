"""Likelihoods p(x given z) of one modality, one file each.

To add a likelihood, write its file and add a line to :data:`LIKELIHOODS`, or to
:data:`IMAGE_LIKELIHOODS` if its features are pixels. Contract tests, documentation and error messages
read these tables.
"""

from __future__ import annotations

from betavi.data.start_values import Start
from betavi.likelihoods._base import Likelihood
from betavi.likelihoods._cosines import BANDS_PER_OCTAVE, CosineBasis, frequency_bands
from betavi.likelihoods._image import ImageLikelihood
from betavi.likelihoods.band_normal import BandNormalLikelihood
from betavi.likelihoods.bernoulli import BernoulliLikelihood
from betavi.likelihoods.dispersion import DISPERSIONS, Dispersion, DispersionSizes
from betavi.likelihoods.logistic_mixture import LogisticMixtureLikelihood
from betavi.likelihoods.lognormal import LogNormalLikelihood
from betavi.likelihoods.multiscale_normal import MultiscaleNormalLikelihood
from betavi.likelihoods.nb import NegativeBinomialLikelihood
from betavi.likelihoods.nb_mixture import NegativeBinomialMixtureLikelihood
from betavi.likelihoods.normal import NormalLikelihood
from betavi.likelihoods.normal_image import NormalImageLikelihood
from betavi.likelihoods.photons import NegativeBinomialImageLikelihood, PoissonImageLikelihood
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

IMAGE_LIKELIHOODS: dict[str, type[ImageLikelihood]] = {
    "band_normal": BandNormalLikelihood,
    "multiscale_normal": MultiscaleNormalLikelihood,
    "normal_image": NormalImageLikelihood,
    "logistic_mixture": LogisticMixtureLikelihood,
    "poisson": PoissonImageLikelihood,
    "nb": NegativeBinomialImageLikelihood,
}
"""Likelihoods of images by name. They have a table of their own, because their features are pixels
and they have no library size."""

__all__ = [
    "BANDS_PER_OCTAVE",
    "DISPERSIONS",
    "IMAGE_LIKELIHOODS",
    "LIKELIHOODS",
    "CosineBasis",
    "Dispersion",
    "DispersionSizes",
    "ImageLikelihood",
    "Likelihood",
    "Start",
    "frequency_bands",
]
