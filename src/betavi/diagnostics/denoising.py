"""Comparison of denoising methods over all genes and for each gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from betavi.diagnostics.smoothing import NULL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from betavi.diagnostics.held_out import DenoisingScore, HeldOutMolecules

N_ERRORS = 2.0  # standard errors by which a trusted gene is better than the null model


@dataclass
class DenoisingReport:
    """Comparison of denoising methods on held-out molecules, over all genes and for each gene.

    Parameters
    ----------
    methods
        One row per method, best first. ``poisson_loss``, ``poisson_deviance``, ``nb_deviance`` and
        ``mse_log`` are means over entries, and lower is better. ``mse_log`` is the squared error of
        log(1 + counts per 10,000). ``explained`` is the share of the null model's Poisson deviance
        that the method explains. ``behind`` is the Poisson loss minus the lowest Poisson loss, and
        ``behind_se`` is the standard error of ``behind``.
    genes
        One row per gene: ``mean``, the mean count per cell without held-out molecules;
        ``explained``, as in ``methods``, NaN for a gene without counts; ``z``, the gain over the
        null model in standard errors; ``trusted``, True if ``z`` > 2. From
        ``cross_validate_denoising`` also ``coverage``, see :meth:`HeldOutMolecules.coverage`, and its
        standard error ``coverage_error``.
    explained
        Share of the null model's deviance that each method explains, ``(n_genes, n_methods)``.
    chosen
        Best method of the model. The table ``genes`` describes this method.
    ties
        Methods of the model within one standard error of the best.
    fraction
        Share of the molecules that were held out.

    Examples
    --------
    >>> genes = pd.DataFrame({"explained": [0.4, -0.1], "trusted": [True, False]})
    >>> DenoisingReport(genes, genes, genes, "mean", ["mean"], fraction=0.1).trusted_share
    0.5
    """

    methods: pd.DataFrame
    genes: pd.DataFrame
    explained: pd.DataFrame
    chosen: str
    ties: list[str]
    fraction: float

    @property
    def trusted_share(self) -> float:
        """Share of the genes that denoising predicts significantly better than the null model."""
        return float(self.genes["trusted"].mean())

    def __str__(self) -> str:
        first, best = self.methods.index[0], self.methods.loc[self.chosen]
        worse = (self.genes["explained"].dropna() < 0).mean()
        text = (
            f"The method {self.chosen!r} explains {best['explained']:.1%} of the null model's deviance on held-out "
            f"molecules. For {self.genes['trusted'].sum()} of {len(self.genes)} genes, denoising is "
            f"significantly better than the gene mean. For {worse:.1%}, it is worse in this sample."
        )
        if first != self.chosen:
            text += f" The method {first} is better by {best['behind']:.2g} nats per entry."
        if len(self.ties) > 1:
            text += f" Methods equal within one standard error: {', '.join(self.ties)}."
        return text


def report_denoising(
    held_out: HeldOutMolecules, scores: Mapping[str, DenoisingScore], own: list[str], names: Any
) -> DenoisingReport:
    """Compare denoising methods by their scores on held-out molecules.

    Parameters
    ----------
    held_out
        Held-out molecules.
    scores
        Scores by method. One method is the null model ``"gene mean x depth"``.
    own
        Methods of the model. One of these is chosen.
    names
        Gene names, ``(n_genes,)``.

    Returns
    -------
    The comparison.

    Examples
    --------
    >>> from betavi.diagnostics import HeldOutMolecules, thin
    >>> rate = np.repeat([[2.0, 8.0], [8.0, 2.0]], 100, axis=0)
    >>> held_out = HeldOutMolecules(thin(np.random.default_rng(0).poisson(rate), fraction=0.5))
    >>> scores = {NULL: held_out.score_null(), "truth": held_out.score([rate / 2])}
    >>> report_denoising(held_out, scores, ["truth"], ["A", "B"]).methods.index[0]
    'truth'
    """
    n_cells = held_out.thinned.kept.shape[0]
    null = scores[NULL].deviance
    table = pd.DataFrame(
        {
            name: {
                "poisson_loss": score.losses.mean(),
                "poisson_deviance": score.deviance.mean() / n_cells,
                "nb_deviance": score.nb_deviance,
                "mse_log": score.mse_log,
                "explained": 1 - score.deviance.sum() / null.sum(),
            }
            for name, score in scores.items()
        }
    ).T.sort_values("poisson_loss")
    first = scores[table.index[0]].losses
    for name in table.index:
        table.loc[name, ["behind", "behind_se"]] = _behind(scores[name].losses, first)
    chosen = min(own, key=lambda name: float(scores[name].losses.mean()))
    behind = {name: _behind(scores[name].losses, scores[chosen].losses) for name in own}
    ties = [name for name, (nats, error) in behind.items() if nats <= error]
    # a gene without remaining counts cannot be predicted
    seen = (null > 0) & (np.asarray(held_out.thinned.kept.sum(axis=0)).ravel() > 0)
    shares = {
        name: 1 - np.divide(score.deviance, null, out=np.full_like(null, np.nan), where=seen)
        for name, score in scores.items()
    }
    explained = pd.DataFrame(shares, index=names)
    genes = _by_gene(scores[chosen], held_out, explained[chosen])
    return DenoisingReport(table, genes, explained, chosen, ties, held_out.thinned.fraction)


def _behind(losses: np.ndarray, best: np.ndarray) -> tuple[float, float]:
    off = losses - best
    return float(off.mean()), float(off.std(ddof=1) / len(off) ** 0.5)


def _by_gene(
    score: DenoisingScore, held_out: HeldOutMolecules, explained: pd.Series
) -> pd.DataFrame:
    n_cells = held_out.thinned.kept.shape[0]
    mean = score.gain / n_cells
    variance = (score.square_gain / n_cells - np.square(mean)).clip(0) / max(n_cells - 1, 1)
    z = np.divide(mean, np.sqrt(variance), out=np.zeros_like(mean), where=variance > 0)
    return pd.DataFrame(
        {
            "mean": np.asarray(held_out.thinned.kept.mean(axis=0)).ravel(),
            "explained": explained,
            "z": np.where(explained.isna(), np.nan, z),
            "trusted": (z > N_ERRORS) & explained.notna().to_numpy(),
        },
        index=explained.index,
    )
