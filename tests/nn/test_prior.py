from __future__ import annotations

import pytest

from betavi.nn import PRIORS
from tests.contracts import check_prior


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_keeps_the_contract(name):
    check_prior(PRIORS[name])
