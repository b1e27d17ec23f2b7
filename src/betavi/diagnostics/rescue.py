"""Report on attempts to repair a collapsed latent space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from betavi.diagnostics.report import CollapseReport

N_ERRORS = 2.0  # standard errors of the paired difference of a significant gain


@dataclass(frozen=True)
class RescueReport:
    """Trials of remedies that start from the same weights, and the chosen remedy.

    Parameters
    ----------
    tried
        One row for ``"nothing"``, the model before the trials; one row per remedy; and ``"...,
        finished"``, the best remedy trained to the end. Columns: ``epochs``; ``beta``;
        ``log_likelihood`` of held-out cells by importance sampling, nats per cell; ``gain``, the
        log-likelihood minus that of ``"nothing"``; ``gain_error``, the paired standard error of
        ``gain``; and ``active_dimensions``.
    chosen
        Row of ``tried`` that has the model's weights. ``"nothing"`` if no remedy was better.
    before, after
        Diagnoses of the model before and after. The same object if the model was not changed.

    Examples
    --------
    >>> import pandas as pd
    >>> tried = pd.DataFrame({"gain": [0.0, 9.0]}, index=["nothing", "anneal"])
    >>> RescueReport(tried, "anneal", before=None, after=None).is_changed
    True
    """

    tried: pd.DataFrame
    chosen: str
    before: CollapseReport
    after: CollapseReport

    @property
    def is_changed(self) -> bool:
        """True if a remedy was better, so that the model has the weights of this remedy."""
        return self.chosen != "nothing"

    def __str__(self) -> str:
        if len(self.tried) == 1:
            head = f"No remedy was tried. The latent space is {self.before.verdict}, "
            return head + "without a cause that training can repair."
        head = "No remedy was better. The model is unchanged."
        if self.is_changed:
            head = (
                f"Chosen: {self.chosen} ({self.before.verdict} before, {self.after.verdict} now)."
            )
        return f"{head}\n\n{self.tried.round(2).to_string()}"

    def _repr_html_(self) -> str:
        head = str(self).split("\n", maxsplit=1)[0]
        return f"<p><b>{head}</b></p>{self.tried.round(2).to_html()}"


def gain(after: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """Return the mean paired difference and its standard error.

    Parameters
    ----------
    after, before
        Log-likelihoods of the same cells, nats, ``(n_cells,)``.

    Returns
    -------
    Mean and standard error, nats per cell.

    Examples
    --------
    >>> gain(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    (1.0, 0.0)
    """
    difference = np.asarray(after) - np.asarray(before)
    return float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))


def best_remedy(tried: pd.DataFrame) -> str:
    """Return the best of the remedies that are significantly better than ``"nothing"``.

    Parameters
    ----------
    tried
        Table of a :class:`RescueReport`.

    Returns
    -------
    Name of the row, or ``"nothing"``.

    Examples
    --------
    >>> import pandas as pd
    >>> tried = {"log_likelihood": [-90.0, -80.0], "gain": [0.0, 10.0], "gain_error": [0.0, 1.0]}
    >>> best_remedy(pd.DataFrame(tried, index=["nothing", "anneal"]))
    'anneal'
    """
    is_better = tried["gain"] > N_ERRORS * tried["gain_error"]
    candidates = tried[is_better & (tried.index != "nothing")]
    return str(candidates["log_likelihood"].idxmax()) if len(candidates) else "nothing"
