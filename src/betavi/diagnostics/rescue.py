"""Report on attempts to repair a latent space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from betavi.diagnostics.report import CollapseReport

SURE_GAIN = 2.0  # standard errors of the paired difference from which on a likelihood is better


@dataclass(frozen=True)
class RescueReport:
    """Remedies that were tried from the same starting point, and the chosen one.

    Parameters
    ----------
    tried
        ``"nothing"``, one row per remedy, and the best of them, ``"..., finished"``: ``epochs``;
        ``beta``; ``log_likelihood`` of held-out cells by importance sampling, nats per cell; its
        ``gain`` over doing nothing, and the paired ``gain_error``; and ``active_dimensions``.
    chosen
        The row whose weights the model has; ``"nothing"`` if no other was better.
    before, after
        Diagnoses of the model; the same object if nothing was changed.

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
        """True if the model has other weights than before."""
        return self.chosen != "nothing"

    def __str__(self) -> str:
        if len(self.tried) == 1:
            head = f"nothing was tried: the latent space is {self.before.verdict}, and no dead "
            return head + "dimension has a cause that training could mend."
        head = (
            f"{self.chosen} was kept: {self.before.verdict} before, {self.after.verdict} after."
            if self.is_changed
            else "nothing tried was better: the model is as it was."
        )
        return f"{head}\n\n{self.tried.round(2).to_string()}"

    def _repr_html_(self) -> str:
        head = str(self).split("\n", maxsplit=1)[0]
        return f"<p><b>{head}</b></p>{self.tried.round(2).to_html()}"


def gain(after: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """Return the mean of a paired difference and its standard error.

    Parameters
    ----------
    after, before
        Log-likelihoods of the same cells, nats, ``(n_cells,)``.

    Returns
    -------
    Both in nats per cell.

    Examples
    --------
    >>> gain(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    (1.0, 0.0)
    """
    difference = np.asarray(after) - np.asarray(before)
    return float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))


def best_remedy(tried: pd.DataFrame) -> str:
    """Return the remedy of the highest likelihood that is surely better than nothing.

    Parameters
    ----------
    tried
        See :class:`RescueReport`.

    Returns
    -------
    The name of its row, or ``"nothing"``.

    Examples
    --------
    >>> import pandas as pd
    >>> tried = {"log_likelihood": [-90.0, -80.0], "gain": [0.0, 10.0], "gain_error": [0.0, 1.0]}
    >>> best_remedy(pd.DataFrame(tried, index=["nothing", "anneal"]))
    'anneal'
    """
    is_better = tried["gain"] > SURE_GAIN * tried["gain_error"]
    candidates = tried[is_better & (tried.index != "nothing")]
    return str(candidates["log_likelihood"].idxmax()) if len(candidates) else "nothing"
