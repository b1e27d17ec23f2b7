"""Causes of unused dimensions: the evidence for each, and its remedy. One file per cause."""

from __future__ import annotations

from betavi.diagnostics.causes._base import Calls, Cause, CauseRule, Evidence, Judge
from betavi.diagnostics.causes.beta_too_high import beta_too_high
from betavi.diagnostics.causes.capacity_too_low import capacity_too_low
from betavi.diagnostics.causes.covariates_explain import covariates_explain
from betavi.diagnostics.causes.decoder_ignores_z import decoder_ignores_z
from betavi.diagnostics.causes.dispersion_absorbs import dispersion_absorbs
from betavi.diagnostics.causes.lagging_encoder import lagging_encoder
from betavi.diagnostics.causes.likelihood_reads_image import likelihood_reads_image
from betavi.diagnostics.causes.too_few_counts import too_few_counts
from betavi.diagnostics.causes.too_many_dimensions import too_many_dimensions
from betavi.diagnostics.causes.unfinished_warmup import unfinished_warmup

CAUSES: dict[str, CauseRule | Judge] = {
    "unfinished_warmup": unfinished_warmup,
    "likelihood_reads_image": likelihood_reads_image,
    "too_few_counts": too_few_counts,
    "covariates_explain": covariates_explain,
    "capacity_too_low": capacity_too_low,
    "beta_too_high": beta_too_high,
    "lagging_encoder": lagging_encoder,
    "dispersion_absorbs": dispersion_absorbs,
    "decoder_ignores_z": decoder_ignores_z,
    "too_many_dimensions": too_many_dimensions,
}
"""Causes by name: rules, or functions that judge the evidence."""


def causes_of(found: Evidence) -> list[Cause]:
    """Return the causes of unused dimensions that the evidence supports.

    A cause is left out if another supported cause explains it.

    Parameters
    ----------
    found
        Evidence from ``diagnose``.

    Returns
    -------
    Causes in order of priority. The list is empty if the evidence supports no cause.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import SignalSpectrum
    >>> spectrum = SignalSpectrum(np.array([9.0, 3.0]), np.ones(20), 1000.0)
    >>> found = Evidence(2, 0, 20.0, 20.0, np.nan, spectrum, spectrum, 0.0, 0.0, 1.0, 0.0, 1.0)
    >>> [cause.name for cause in causes_of(found)]
    ['beta_too_high']
    """
    rules = cause_rules()
    judged = {name: rule.judge(found) for name, rule in rules.items()}
    supported = {name: texts for name, texts in judged.items() if texts is not None}
    explained = {other for name in supported for other in explained_by(rules[name])}
    return [
        Cause(name, *supported[name])
        for name in sorted(supported, key=lambda name: rules[name].priority)
        if name not in explained or rules[name].independent_if(found)
    ]


__all__ = ["CAUSES", "Calls", "Cause", "CauseRule", "Evidence", "causes_of"]


def cause_rules() -> dict[str, CauseRule]:
    """Return the rule of each cause in ``CAUSES``."""
    return {
        name: member if isinstance(member, CauseRule) else CauseRule(member)
        for name, member in CAUSES.items()
    }


def explained_by(rule: CauseRule) -> set[str]:
    """Return the names of the causes that a supported cause explains, and the report leaves out."""
    if not rule.explains_last_resorts:
        return set(rule.explains)
    last_resorts = {name for name, other in cause_rules().items() if other.is_last_resort}
    return last_resorts | set(rule.explains)
