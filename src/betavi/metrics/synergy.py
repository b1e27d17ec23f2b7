"""Interactions of two perturbations, from viabilities or fitness."""

from __future__ import annotations

from numbers import Real

import pandas as pd
from scipy import stats

from betavi._tables import check_whole, lookup
from betavi.metrics._designs import matched, unmatched
from betavi.metrics._expected import SCALES, Scale, fit_bend
from betavi.metrics._screens import Columns, check_viability, read_screen
from betavi.metrics._units import PAIR, units_of

EXPECTATIONS = {"bliss": False, "fitted": True}
NUMBERS = [
    "n_measurements", "n_replicates", "observed", "expected", "excess", "excess_lower",
    "excess_upper", "hsa_excess", "hsa_lower", "hsa_upper", "p_value", "fdr",
]  # fmt: skip


def synergy(
    table: pd.DataFrame,
    perturbation_key: str = "perturbation",
    value_key: str = "value",
    control: str = "control",
    *,
    separator: str = "+",
    replicate_key: str | None = None,
    context_key: str | None = None,
    scale: str = "viability",
    expectation: str = "bliss",
    level: float = 0.9,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Test pairs of perturbations for synergy and antagonism.

    A pair interacts if its value differs from the value that Bliss independence expects from its
    singles. The noise of few replicates is estimated as in limma: the variance of each
    perturbation is shrunk towards a trend over the values of all perturbations.

    Parameters
    ----------
    table
        One row per measurement. It needs the control, the pairs and both singles of each pair.
    perturbation_key
        Column of perturbations, such as ``"A"``, ``"B"``, ``"A+B"`` and the control. ``"B+A"`` is
        the pair ``"A+B"``, and ``"A+control"`` is the single ``"A"``.
    value_key
        Column of measured values, see ``scale``.
    control
        Name of the control in ``perturbation_key``.
    separator
        Text between the perturbations of a pair.
    replicate_key
        Column of replicates. In each replicate, a pair is compared with the singles and the control
        of this replicate, which cancels effects of batches. Measure the control several times in
        each replicate, because all pairs share its noise. A replicate with two parts names
        guides: the pair ``"A+B"`` with ``"a1+b2"`` is compared with the singles ``"A"`` with
        ``"a1"`` and ``"B"`` with ``"b2"``, and with the mean of the control. If None, all rows are
        independent measurements.
    context_key
        Column of contexts, such as cell lines. Each context has its own singles and control.
    scale
        ``"viability"``, fractions of surviving cells, about 1 for the control. The expected value
        is the product of the singles, relative to the control. Or ``"log"``, log fitness or growth.
        The expected value is the sum of the singles, relative to the control.
    expectation
        ``"bliss"``, or ``"fitted"`` for large screens in which most pairs deviate from Bliss in the
        same way. It adds a quadratic function of both singles, and for each single (or guide) an
        intercept and a slope over the partner's effect, after Horlbeck et al. (2018). It needs ten
        partners for each single on average. An interaction with most partners is not found. With
        few partners, the fit also absorbs noise, and p-values are too large.
    level
        Probability that an interval contains the true excess.
    n_bootstrap
        Number of bootstrap samples for intervals.
    seed
        Seed of the bootstrap.

    Returns
    -------
    One row per pair and context, in the unit of the values.

    - ``context`` (only with ``context_key``), ``perturbation``, ``first`` and ``second``;
    - ``n_measurements`` and ``n_replicates`` of the pair, equal without ``replicate_key``;
    - ``observed`` and ``expected``, means over replicates;
    - ``excess``, observed minus expected. On both scales, negative is synergy, because fewer cells
      survive than expected. Positive is antagonism, or buffering;
    - ``hsa_excess``, observed minus the lower single (highest single agent). Positive values mean
      that one perturbation alone has a larger effect than the pair;
    - ``excess_lower``, ``excess_upper``, ``hsa_lower``, ``hsa_upper``, ends of the intervals. The
      bootstrap resamples residuals of pairs, singles and the control;
    - ``p_value``, two-sided, from a t-test of the excess with moderated variances. NaN if a
      perturbation has one measurement and fewer than three others have more;
    - ``fdr``, false discovery rate over all rows, after Benjamini and Hochberg.

    Without pairs, the result has no rows.

    Raises
    ------
    KeyError
        If a column is missing.
    TypeError
        If ``table`` is not a DataFrame.
    ValueError
        If the control or a single is missing, values are not finite, viabilities are not fractions,
        more than two perturbations are combined, there are no replicates, or an option is unknown.

    Notes
    -----
    Loewe additivity needs dose-response curves. The package ``synergy`` on PyPI computes it.

    Variances are pooled over contexts. Different guides of one gene share the noise of that gene's
    singles: the correlation of guide pairs with a common guide is estimated over all pairs.

    References
    ----------
    Bliss (1939), The toxicity of poisons applied jointly. Smyth (2004), Linear models and empirical
    Bayes methods. Horlbeck et al. (2018), Mapping the genetic landscape of human cells. Norman et
    al. (2019), Exploring genetic interaction manifolds.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import betavi
    >>> means = {"control": 1.0, "A": 0.8, "B": 0.5, "A+B": 0.1}
    >>> table = pd.DataFrame({"perturbation": np.repeat(list(means), 4)})
    >>> noise = np.random.default_rng(0).normal(scale=0.02, size=len(table))
    >>> table["value"] = table["perturbation"].map(means) + noise
    >>> found = betavi.metrics.synergy(table)
    >>> found[["perturbation", "expected", "excess", "hsa_excess"]].round(1)
      perturbation  expected  excess  hsa_excess
    0          A+B       0.4    -0.3        -0.4
    """
    columns = Columns(perturbation_key, value_key, control, separator, replicate_key, context_key)
    formula = lookup(SCALES, scale, "`scale`")
    is_fitted = lookup(EXPECTATIONS, expectation, "`expectation`")
    check_whole("`n_bootstrap`", n_bootstrap)
    if not isinstance(level, Real) or not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1, not {level!r}.")
    rows = read_screen(table, columns)
    if scale == "viability":
        check_viability(rows)
    units = with_expected(units_of(rows), formula, is_fitted)
    found = _means(units)
    is_matched = replicate_key is not None
    if not is_matched:
        found["n_replicates"] = found["n_measurements"]
    if len(found):
        tests = matched(units, found) if is_matched else unmatched(rows, found, formula)
        for name, (contrast, noise) in tests.items():
            ends = contrast.intervals(noise, level, n_bootstrap, seed)
            found[f"{name}_lower"], found[f"{name}_upper"] = ends.T
            if name == "excess":
                found["p_value"] = contrast.p_values(noise)
    found["fdr"] = _fdr(found)
    found.insert(1, "perturbation", found["first"] + separator + found["second"])
    found = found.reindex(columns=["context", "perturbation", "first", "second", *NUMBERS])
    return found if context_key is not None else found.drop(columns="context")


def with_expected(units: pd.DataFrame, scale: Scale, is_fitted: bool) -> pd.DataFrame:
    """Return units with their expected value, excess and excess over the lower single."""
    units = units.assign(expected=scale.bliss(units["a"], units["b"], units["c"]))
    if is_fitted:
        for _, some in units.groupby("context"):
            units.loc[some.index, "expected"] += fit_bend(some, scale)(some)
    # one single for all replicates: the minimum of each replicate would be too low
    means = units.groupby(PAIR, sort=False)[["a", "b"]].transform("mean")
    lower = units["a"].where(means["a"] <= means["b"], units["b"])
    return units.assign(
        excess=units["observed"] - units["expected"], hsa_excess=units["observed"] - lower
    )


def _means(units: pd.DataFrame) -> pd.DataFrame:
    groups = units.groupby(PAIR, sort=False)
    found = groups[["observed", "expected", "excess", "hsa_excess", "a", "b", "c"]].mean()
    return found.assign(n_measurements=groups["n"].sum(), n_replicates=groups.size()).reset_index()


def _fdr(found: pd.DataFrame) -> pd.Series:
    p_values = found["p_value"] if "p_value" in found else pd.Series(dtype=float)
    known = p_values.dropna()
    rates = stats.false_discovery_control(known) if len(known) else []
    return pd.Series(rates, known.index, dtype=float).reindex(found.index)
