"""What every member of a family keeps to, whether it is the package's or a user's."""

from __future__ import annotations

from tests.contracts.cause import check_cause
from tests.contracts.decoder import check_decoder
from tests.contracts.dispersion import check_dispersion
from tests.contracts.fusion import check_fusion
from tests.contracts.image_likelihood import check_image_likelihood
from tests.contracts.latent import check_latent
from tests.contracts.likelihood import check_likelihood
from tests.contracts.prior import check_prior
from tests.contracts.schedule import check_schedule
from tests.contracts.section import check_section

__all__ = [
    "check_cause",
    "check_decoder",
    "check_dispersion",
    "check_fusion",
    "check_image_likelihood",
    "check_latent",
    "check_likelihood",
    "check_prior",
    "check_schedule",
    "check_section",
]
