"""Values that are not counts, and scores of held-out counts beside a null model and PCA."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import gammaln, xlogy

from betavi import _blocks
from betavi.diagnostics.trust.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SIZES = 1e-3, 1e6
"""Smallest and largest size of a negative binomial distribution; the largest is a Poisson."""

BEHIND = 0.05
"""Share of PCA's gain over the null model by which a model that is behind PCA needs care. Not tuned."""


N_ERRORS = 2.0
"""Standard errors of a significant difference."""


class Values(NamedTuple):
    """Registered values of a modality.

    Parameters
    ----------
    fractions
        Share of the stored values that are not whole numbers.
    needs_counts
        True if the likelihood is a distribution of whole numbers.
    likelihood
        Name of the likelihood.

    Examples
    --------
    >>> Values(0.0, True, "zinb").needs_counts
    True
    """

    fractions: float
    needs_counts: bool
    likelihood: str


def judge_values(found: Mapping[str, Values]) -> list[Finding]:
    """Report registered values that are not counts.

    Parameters
    ----------
    found
        Values of each modality. An AnnData has one modality with the name ``"X"``.

    Returns
    -------
    Findings.

    Examples
    --------
    >>> judge_values({"X": Values(0.9, True, "zinb")})[0].level
    'stop'
    """
    findings = []
    for name, (fractions, needs_counts, likelihood) in found.items():
        if not fractions:
            continue
        where = "The registered values" if name == "X" else f"The values of {name!r}"
        text = (
            f"{where} are not counts: {fractions:.0%} of the values above 0 are not whole numbers. "
        )
        if needs_counts:
            text += (
                f"They were probably normalised. The likelihood {likelihood!r} is a distribution of "
                "counts, so its noise, its intervals and its p-values are wrong for these values."
            )
            remedy = "Register raw counts, for example with `layer=`, and train a new model."
            findings.append(Finding("stop", "data", text, remedy))
        else:
            text += f"The likelihood {likelihood!r} allows this. Counts would be preferable."
            findings.append(Finding("note", "data", text))
    return findings


def null_score(
    train: sparse.csr_array, held_out: sparse.csr_array, batches: tuple[np.ndarray, np.ndarray]
) -> float:
    """Score held-out counts by a null model without a latent space.

    The mean of a count is the total of the cell times the share of the gene in the batch. The share is
    estimated on training cells, with one added count per gene on average. The noise is negative
    binomial, with one size per gene from the moments of training cells.

    Parameters
    ----------
    train, held_out
        Counts, ``(n_cells, n_genes)``.
    batches
        Batch of each training cell and of each held-out cell, as codes from 0.

    Returns
    -------
    Log-probability of the counts, nats per held-out cell, given the total of each cell.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> counts = sparse.csr_array(np.random.default_rng(0).poisson(3.0, size=(200, 5)))
    >>> codes = np.zeros(100, dtype=int)
    >>> round(null_score(counts[:100], counts[100:], (codes, codes)) / 5, 1)
    -1.8
    """
    shares = _shares(train, batches[0], 1 + max(int(codes.max()) for codes in batches))
    excess = square = np.zeros(train.shape[1])
    for counts, mean in _blocks_of(train, shares, batches[0]):
        excess = excess + (np.square(counts - mean) - mean).sum(axis=0)
        square = square + np.square(mean).sum(axis=0)
    size = (square / excess.clip(1e-300)).clip(*SIZES)
    total = 0.0
    for counts, mean in _blocks_of(held_out, shares, batches[1]):
        logs = gammaln(counts + size) - gammaln(size) - gammaln(counts + 1)
        logs = logs - size * np.log1p(mean / size) + xlogy(counts, mean / (mean + size))
        total += float(logs.sum())
    return total / held_out.shape[0]


def judge_scores(
    model: float,
    null: float,
    linear: float,
    name: str,
    is_beta_one: bool = True,
    error: float = 0.0,
    is_falling: bool = False,
    makes_map: bool = True,
) -> list[Finding]:
    """Compare the scores of held-out counts: a model, the null model and PCA.

    Parameters
    ----------
    model, null, linear
        Evidence lower bound of each, nats per cell. Higher is better. NaN is not compared.
    name
        Name of the modality, ``"X"`` for an AnnData.
    is_beta_one
        False if the model was trained at another β than 1, which the bound is not optimal for.
    error
        Standard error of the difference between PCA and the model, nats per cell. Within two standard
        errors, the model is as good as PCA.
    is_falling
        True if the loss was still falling at the end of training, so that more epochs may help.
    makes_map
        False for one of several modalities, whose faults concern only its own counts.

    Returns
    -------
    Findings.

    Examples
    --------
    >>> [finding.level for finding in judge_scores(-90.0, -100.0, -95.0, "X")]
    []
    """
    what = "held-out counts" if name == "X" else f"held-out counts of {name!r}"
    hint = (
        "" if is_beta_one else " The model was trained at another β than 1, which lowers its score."
    )
    if model <= null:
        text = (
            f"The model does not explain {what} better than the mean of each gene does: {model:.1f} "
            f"against {null:.1f} nats per cell.{hint}"
        )
        remedy = f"{_more_epochs(is_falling)} Train with fewer latent dimensions. Check the counts."
        return [
            Finding(
                "care",
                "counts",
                text,
                remedy,
                ("map", "dimensions", "genes") if makes_map else ("genes",),
            )
        ]
    if model < linear:
        gap = linear - model
        is_far = gap > max(BEHIND * (linear - null), N_ERRORS * error)
        text = (
            f"PCA explains {what} {'better than' if is_far else 'as well as'} the model: {linear:.1f} "
            f"against {model:.1f} nats per cell (null model: {null:.1f}, standard error of the difference: "
            f"{error:.1f}).{hint}"
        )
        remedy = (
            f"{_more_epochs(is_falling)} Compare likelihoods with "
            "betavi.metrics.compare_likelihoods(model)."
        )
        level = "care" if is_far else "note"
        return [
            Finding(level, "counts", text, remedy, ("map", "genes") if makes_map else ("genes",))
        ]
    return []


def _more_epochs(is_falling: bool) -> str:
    """Return advice about the number of epochs, in agreement with the training curve."""
    if is_falling:
        return "Train for more epochs, as the loss was still falling."
    return "The loss was flat at the end, so more epochs would change little."


def _shares(counts: sparse.csr_array, codes: np.ndarray, n_batches: int) -> np.ndarray:
    """Return the share of each gene in each batch, ``(n_batches, n_genes)``."""
    n_cells, n_genes = counts.shape
    member = sparse.csr_array((np.ones(n_cells), (codes, np.arange(n_cells))), (n_batches, n_cells))
    sums = (member @ counts).toarray()
    everyone = (sums.sum(axis=0) + 1 / n_genes) / (sums.sum() + 1)
    added = sums + n_genes * everyone
    shares: np.ndarray = added / added.sum(axis=1, keepdims=True)
    return shares


def _blocks_of(
    counts: sparse.csr_array, shares: np.ndarray, codes: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of counts and of their means in the null model."""
    for start in range(0, counts.shape[0], _blocks.HELD_OUT_CELLS):
        block = counts[start : start + _blocks.HELD_OUT_CELLS].toarray().astype(np.float64)
        totals = block.sum(axis=1, keepdims=True)
        yield block, totals * shares[codes[start : start + len(block)]]
