"""Findings about a model, and the verdict that follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from betavi._tables import lookup

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

PURPOSES: dict[str, str] = {
    "map": "Map of the cells: neighbours, clusters, trajectories",
    "dimensions": "Single latent dimensions",
    "genes": "Denoised expression",
    "conditions": "Comparison of groups of cells between batches",
    "effects": "Effects of measured perturbations",
    "predictions": "Predictions of new conditions",
}
"""Uses of a model, by the word that findings have."""

ANSWERS = ("usable", "usable with care", "not usable")
"""Answers, best first."""

UNMEASURED = "not measured"
"""Answer for a use that no section of the report has tested."""

LEVELS: dict[str, str] = {"note": ANSWERS[0], "care": ANSWERS[1], "stop": ANSWERS[2]}
"""Best answer that a finding allows, by its level. A note changes no answer."""


class Finding(NamedTuple):
    """One thing that a report found.

    Parameters
    ----------
    level
        ``"note"``, ``"care"`` or ``"stop"``, a key of :data:`LEVELS`.
    section
        Section of the report with the evidence.
    text
        Finding in one or two sentences, with its numbers.
    remedy
        Change that would help. Empty if none is known.
    purposes
        Uses that the finding concerns, keys of :data:`PURPOSES`. Empty for all uses.

    Examples
    --------
    >>> Finding("care", "cells", "Many cells are outlying.").purposes
    ()
    """

    level: str
    section: str
    text: str
    remedy: str = ""
    purposes: tuple[str, ...] = ()


class Overall(NamedTuple):
    """Verdict on a model.

    Parameters
    ----------
    answer
        One of :data:`ANSWERS`.
    by_purpose
        Answer for each use, or ``"not measured"``.

    Examples
    --------
    >>> print(Overall("usable", {"map": "usable", "genes": "not measured"}).sentence)
    Usable for: map of the cells (neighbours, clusters, trajectories). Not measured: denoised expression.
    """

    answer: str
    by_purpose: dict[str, str]

    @property
    def sentence(self) -> str:
        """Uses by answer, in words."""
        parts = []
        for answer in (*ANSWERS, UNMEASURED):
            names = [_in_words(name) for name, own in self.by_purpose.items() if own == answer]
            if names:
                head = answer.capitalize() + (" for" if answer in ANSWERS else "")
                parts.append(f"{head}: {'; '.join(names)}.")
        return " ".join(parts)


def overall_of(
    findings: Iterable[Finding], purposes: Collection[str], measured: Mapping[str, bool]
) -> Overall:
    """Return the verdict that follows from findings.

    A use gets the worst answer that a finding about it allows. A model is not usable if all its uses are
    ruled out. It is usable if it is usable for all purposes that were tested.

    Parameters
    ----------
    findings
        Findings of all sections.
    purposes
        Uses of this model, keys of :data:`PURPOSES`.
    measured
        True for a use that a section has tested.

    Returns
    -------
    The verdict.

    Raises
    ------
    ValueError
        If a finding has an unknown level.

    Examples
    --------
    >>> found = [Finding("stop", "data", "The batch is the condition.", purposes=("conditions",))]
    >>> overall_of(found, ["map", "conditions"], {"map": True, "conditions": True}).answer
    'usable with care'
    """
    findings, by_purpose = list(findings), {}
    for purpose in purposes:
        own = [lookup(LEVELS, f.level, "level") for f in findings if _concerns(f, purpose)]
        worst = max(own, key=ANSWERS.index, default=ANSWERS[0])
        # a use that was not tested can still be ruled out
        is_known = measured.get(purpose, False) or worst == ANSWERS[2]
        by_purpose[purpose] = worst if is_known else UNMEASURED
    return Overall(_summed_up(list(by_purpose.values()), findings), by_purpose)


def _summed_up(answers: list[str], findings: list[Finding]) -> str:
    # a use that was not measured is not ruled out
    if answers and all(answer == ANSWERS[2] for answer in answers):
        return ANSWERS[2]
    known = [answer for answer in answers if answer != UNMEASURED]
    has_care = any(finding.level != "note" for finding in findings)
    is_good = bool(known) and all(answer == ANSWERS[0] for answer in known)
    return ANSWERS[0] if is_good and not has_care else ANSWERS[1]


def _concerns(finding: Finding, purpose: str) -> bool:
    return not finding.purposes or purpose in finding.purposes


def _in_words(name: str) -> str:
    head, _, rest = PURPOSES[name].partition(": ")
    head = head[0].lower() + head[1:]
    return f"{head} ({rest})" if rest else head
