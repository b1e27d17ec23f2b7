"""Keys of a minibatch that are not in the registry."""

from __future__ import annotations

from typing import NamedTuple

from scvi import REGISTRY_KEYS

COUNTS: str = REGISTRY_KEYS.X_KEY
"""Name of the only modality of an AnnData: the key of its counts in a minibatch."""


def present_key(modality: str) -> str:
    """Return the minibatch key of the mask of cells that have a modality.

    Parameters
    ----------
    modality
        The key of its counts.

    Returns
    -------
    The key of a mask, ``(n_cells, 1)``.

    Examples
    --------
    >>> from betavi.data import present_key
    >>> present_key("adt")
    'adt_present'
    """
    return f"{modality}_present"


class ExpertKeys(NamedTuple):
    """Minibatch keys of a modality in a minified object, which keeps no counts.

    Parameters
    ----------
    mean, variance
        Keys of the expert's moments, ``(n_cells, n_latent)``.
    total
        Key of the cells' totals, ``(n_cells, 1)``.

    Examples
    --------
    >>> from betavi.data import expert_keys
    >>> expert_keys("rna").total
    'rna_total'
    """

    mean: str
    variance: str
    total: str


def expert_keys(modality: str) -> ExpertKeys:
    """Return the minibatch keys of a modality's expert, and of its cells' totals.

    Parameters
    ----------
    modality
        The key of its counts.

    Returns
    -------
    Three keys.

    Examples
    --------
    >>> from betavi.data import expert_keys
    >>> expert_keys("rna")
    ExpertKeys(mean='rna_mean', variance='rna_variance', total='rna_total')
    """
    if modality == COUNTS:
        keys = REGISTRY_KEYS
        return ExpertKeys(keys.LATENT_QZM_KEY, keys.LATENT_QZV_KEY, keys.OBSERVED_LIB_SIZE)
    return ExpertKeys(*(f"{modality}_{field}" for field in ("mean", "variance", "total")))
