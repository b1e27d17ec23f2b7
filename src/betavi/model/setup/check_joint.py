"""What is wrong with the arguments of a joint model."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

from scvi.data._constants import _SCVI_UUID_KEY

from betavi._tables import lookup
from betavi.model.setup.check_mudata import check_is_mudata
from betavi.nn import FUSIONS

if TYPE_CHECKING:
    from typing import TypeGuard


def check_is_set_up(mdata: Any) -> None:
    """Refuse what was not registered.

    Raises
    ------
    TypeError
        If it is no MuData.
    ValueError
        If it was not set up.
    """
    check_is_mudata(mdata)
    if _SCVI_UUID_KEY not in mdata.uns:
        raise ValueError(
            "Say first which modalities the model is of: JointVI.setup_mudata(mdata, likelihoods={...})."
        )


def check_fusion(fusion: str, n_modalities: int) -> None:
    """Refuse a rule that is none, or is of one modality and there are several.

    Raises
    ------
    ValueError
        If it is.
    """
    fit = {k: rule for k, rule in FUSIONS.items() if n_modalities == 1 or not rule.is_of_one}
    lookup(fit, fusion, "fusion")


def is_weight(value: Any) -> TypeGuard[float]:
    """Say whether a distortion can be multiplied by it."""
    return isinstance(value, Real) and math.isfinite(value) and float(value) > 0
