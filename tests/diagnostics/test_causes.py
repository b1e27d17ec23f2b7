from __future__ import annotations

import pytest

from betavi.diagnostics import CAUSES, Calls, CauseRule, causes_of
from tests.contracts import check_cause
from tests.contracts.cause import EXAMPLES, evidence, spectrum

NAN = float("nan")


def names_of(**changes):
    return [cause.name for cause in causes_of(evidence(**changes))]


@pytest.mark.parametrize("name", CAUSES)
def test_every_cause_keeps_the_contract(name):
    check_cause(name)


@pytest.mark.parametrize(("cause", "changes"), EXAMPLES)
def test_each_cause_is_found_by_its_evidence(cause, changes):
    first = causes_of(evidence(**changes))[0]
    assert first.name == cause
    assert first.evidence.endswith(".")
    assert first.remedy in str(first)


def test_every_cause_is_tested():
    assert {cause for cause, _ in EXAMPLES} == set(CAUSES)


def test_spare_dimensions_are_named_only_if_there_are_some_or_nothing_else_is_to_blame():
    directions = {"spectrum": spectrum(*range(20, 0, -1))}
    assert names_of(**directions, n_used=10) == []
    assert names_of(**directions, gap=50.0) == ["lagging_encoder"]
    # here no linear theory keeps as many
    assert names_of(gap=50.0) == ["lagging_encoder", "too_many_dimensions"]


def test_a_collapse_never_is_without_a_cause_if_there_is_something_to_say():
    for beta in (0.01, 1.0, 3.0, 100.0):
        assert names_of(n_used=0, beta=beta, requested_beta=beta)


def test_a_beta_that_lets_most_live_is_not_to_blame():
    directions = {"spectrum": spectrum(50, 40, 30, 0.5, 0.2), "beta": 4.0, "requested_beta": 4.0}
    for n_latent, n_used in ((3, 2), (20, 3)):
        assert names_of(**directions, n_latent=n_latent, n_used=n_used) == ["too_many_dimensions"]


def test_what_was_not_measured_is_no_evidence():
    names = names_of(gap=NAN, gap_error=NAN, excess_noise=NAN, n_used=1)
    assert not {"lagging_encoder", "dispersion_absorbs"} & set(names)


def test_the_remedy_is_called_by_the_names_of_the_users_model():
    calls = Calls("JointVI(mdata, modality_weights={'adt': 10.0})", "JointVI(mdata, {})", "none")
    (cause, *_) = causes_of(evidence(n_used=0, calls=calls))
    assert cause.remedy == "JointVI(mdata, modality_weights={'adt': 10.0})."
    (cause, *_) = causes_of(evidence(calls=calls))
    assert "JointVI(mdata, n_latent=" in cause.remedy


def test_causes_tell_what_is_used_from_what_may_be():
    found = evidence(n_latent=20, n_used=8, n_unclear=2)
    (cause,) = [c for c in causes_of(found) if c.name == "too_many_dimensions"]
    assert "6 of 20 dimensions are used and 2 more may be" in cause.evidence


def always(_found):
    return "it always is.", "none."


def test_a_function_in_the_table_is_reported_last_and_silences_nothing(monkeypatch):
    before = [names_of(**changes) for _, changes in EXAMPLES]
    monkeypatch.setitem(CAUSES, "always", always)
    assert [names_of(**changes) for _, changes in EXAMPLES] == [[*b, "always"] for b in before]


def test_a_rule_has_its_place_and_explains_others(monkeypatch):
    explains = {"decoder_ignores_z", "too_many_dimensions"}
    monkeypatch.setitem(CAUSES, "always", CauseRule(always, priority=55, explains=explains))
    assert names_of(n_used=0) == ["always"]
    found = names_of(beta=8.0, requested_beta=8.0, n_used=3, gap=50.0)
    assert found[:3] == ["beta_too_high", "always", "lagging_encoder"]
    # spare dimensions are there whatever else is
    assert names_of() == ["always", "too_many_dimensions"]
    assert names_of(spectrum=spectrum(*range(20, 0, -1))) == ["always"]


def test_a_last_resort_from_outside_is_hidden_like_those_of_the_package(monkeypatch):
    outside = CauseRule(
        lambda _found: ("Nothing else is known.", "Look closer."), is_last_resort=True
    )
    monkeypatch.setitem(CAUSES, "unknown", outside)
    assert "unknown" in names_of()
    directions = {"spectrum": spectrum(*range(20, 0, -1))}
    assert names_of(**directions, gap=50.0) == ["lagging_encoder"]
