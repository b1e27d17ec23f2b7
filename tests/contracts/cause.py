"""The contract of a cause, judged by evidence of every cause of the package."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np

from betavi.diagnostics import CAUSES, CauseRule, Evidence, SignalSpectrum, causes_of
from betavi.diagnostics.causes import explained_by


def spectrum(*signals):
    return SignalSpectrum(np.array(signals), np.ones(10), 800.0)


EVIDENCE = {
    "n_latent": 10, "n_used": 5, "beta": 1.0, "requested_beta": 1.0,
    "held_rate": float("nan"),
    "spectrum": spectrum(9, 8, 7, 6, 5), "spectrum_without_covariates": spectrum(9, 8, 7, 6, 5),
    "explained": 100.0, "gap": 2.0, "gap_error": 0.1, "covariates": 0.0, "excess_noise": 1.0,
}  # fmt: skip

EXAMPLES = [
    ("unfinished_warmup", {"beta": 0.2}),
    ("too_few_counts", {"spectrum": spectrum(), "spectrum_without_covariates": spectrum()}),
    ("likelihood_reads_image", {"likelihood_reads_image": True, "n_used": 0}),
    ("capacity_too_low", {"beta": float("nan"), "held_rate": 1.0, "n_used": 2}),
    ("decoder_ignores_z", {"n_used": 0}),
    ("too_many_dimensions", {"spectrum": spectrum(*range(20, 0, -1))}),
    ("covariates_explain", {"spectrum": spectrum(0.9, 0.8, 0.7, 0.6), "n_used": 2}),
    ("covariates_explain", {"spectrum": spectrum(), "n_used": 0, "covariates": 180.0}),
    ("lagging_encoder", {"gap": 50.0}),
    ("beta_too_high", {"beta": 8.0, "requested_beta": 8.0, "n_used": 3}),
    ("dispersion_absorbs", {"excess_noise": 3.0, "n_used": 1}),
    ("too_many_dimensions", {}),
]
"""The first cause of each change of the evidence."""


def evidence(**changes):
    return Evidence(**EVIDENCE | changes)


def check_cause(name):
    member = CAUSES[name]
    rule = member if isinstance(member, CauseRule) else CauseRule(member)
    assert explained_by(rule) <= CAUSES.keys() - {name}
    for _, changes in EXAMPLES:
        found = evidence(**changes)
        words = rule.judge(found)
        assert words is None or words_are_sentences(*words)
        assert words == rule.judge(found), "the judgement depends on more than the evidence"
        silences_only_what_it_explains(name, rule, found)


def words_are_sentences(said, remedy):
    return said.endswith(".") and remedy.endswith(".")


def silences_only_what_it_explains(name, rule, found):
    """The other causes reported are the same with it and without it, but for those it explains."""
    with_it = [cause.name for cause in causes_of(found) if cause.name != name]
    with patch.dict(CAUSES):
        del CAUSES[name]
        without = [cause.name for cause in causes_of(found)]
    assert [other for other in without if other in with_it] == with_it
    assert set(without) - set(with_it) <= explained_by(rule)
