"""The trust report of a model: measurements, the verdict, and a page."""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from betavi._tables import check_flag
from betavi.diagnostics.trust import PURPOSES, overall_of
from betavi.model.report.content import answers_of, remarks_of, section_content, stored
from betavi.model.report.page import checked_path, page_of, write_page
from betavi.model.report.results import Results
from betavi.model.report.section import Section
from betavi.model.report.sections import SECTIONS
from betavi.model.setup.arguments import check_arguments
from betavi.model.setup.check_obs import labels_column
from betavi.model.setup.registered import untouched_on_failure

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.diagnostics.trust import Finding, Overall
    from betavi.model.core.latent_model import LatentModel
    from betavi.model.report.content import ReportContent
    from betavi.model.report.section import SectionRule

NOT_AVAILABLE = (ValueError, RuntimeError)
"""Errors with which a method refuses what it cannot do for a model."""


def report(
    model: LatentModel,
    path: str | os.PathLike[str] | None = None,
    adata: AnnOrMuData | None = None,
    sections: Sequence[str] | str | None = None,
    labels_key: str | None = None,
    condition_key: str | None = None,
    seed: int = 0,
    show_progress: bool = True,
) -> ReportContent:
    """Write one page that says whether this model can be used, and for what.

    The page begins with the verdict and with four answers. Is the model usable? For which genes? For
    which cells? What should be changed? Each section shows its evidence, what it means, what it does
    not mean, and the method that was called. The file holds everything and loads nothing. The same
    content is stored in ``uns["betavi"]["report"]`` of the model's object.

    Parameters
    ----------
    path
        File of the page, with the ending ``.html``. An existing file is replaced. If None, no file is
        written.
    adata
        Object with new cells, whose support is tested in the section ``"cells"``. If None, the model's
        own cells are tested.
    sections
        Names of the sections: ``"data"``, ``"training"``, ``"latent"``, ``"rate_distortion"``,
        ``"counts"``, ``"denoising"``, ``"calibration"``, ``"cells"``, ``"dimensions"``, ``"effects"``,
        ``"interactions"``. If None, all sections that the model has. The slow ones are then left out for
        large data, and the page says so: ``"denoising"`` and ``"calibration"`` above 10 million values
        (cells times features), and ``"effects"`` above 100 million.
    labels_key
        Column of ``obs`` with labels, such as cell types. If None, the registered labels.
    condition_key
        Column of ``obs`` with the groups to compare, such as a treatment. If None, all columns with at
        most 20 groups are compared with the batch.
    seed
        Seed of the choice of cells and of draws.
    show_progress
        Show progress bars.

    Returns
    -------
    Dictionary of plain values, which :func:`json.dumps` accepts. ``answer`` is ``"usable"``,
    ``"usable with care"`` or ``"not usable"``. ``purposes`` has the answer for each use. ``answers``
    has the answers to the four questions. ``findings`` lists what the verdict follows from, with a
    ``level``, a ``text`` and a ``remedy``. ``sections`` has the evidence: a ``verdict``, a
    ``sentence`` and ``tables``.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    KeyError
        If ``labels_key`` or ``condition_key`` is not a column of ``obs``.
    ValueError
        If a section is unknown, ``path`` has another ending, or the object is minified. All errors are
        raised before the first section is made. A section that is impossible for this model is "not
        available" in the report, with the reason.
    FileNotFoundError
        If the folder of ``path`` does not exist.

    References
    ----------
    Lucas et al. (2019), Don't blame the ELBO! Batson, Royer & Webber (2019), Molecular cross-validation
    for single-cell RNA-seq. Bates et al. (2023), Testing for outliers with conformal p-values.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=300, n_genes=30)
    >>> betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> found = model.report(sections=["data", "training"], show_progress=False)
    >>> found["sections"]["data"]["verdict"], found["purposes"]["map"]
    ('in order', 'not measured')
    """
    target = None if path is None else _checked_target(path)
    check_arguments({"seed": seed})
    check_flag("show_progress", show_progress)
    model._check_if_trained(warn=False)
    chosen = _chosen(model, sections)
    model.refuse_minified("report")
    own = model._validate_anndata(None)
    registered = model.registry_["setup_args"].get("labels_key")
    for key, name in ((labels_key, "labels_key"), (condition_key, "condition_key")):
        if key is not None:
            _check_column(own, key, name)
    if adata is not None:
        adata = model._validate_anndata(adata)
    labels_key = registered if labels_key is None else labels_key
    results = Results(model, adata, labels_key, condition_key, seed, show_progress)
    with untouched_on_failure(own):
        with model.seeded(seed):
            made = {name: _made(results, rule, reason) for name, (rule, reason) in chosen.items()}
        content = _content(model, made)
        own.uns["betavi"] = {**own.uns.get("betavi", {}), "report": stored(content)}
        if target is not None:
            write_page(page_of(content, made), target)
    return content


def _checked_target(path: Any) -> Any:
    check_arguments({"out": path})
    return checked_path(path)


def _check_column(adata: AnnOrMuData, key: Any, argument: str) -> None:
    try:
        labels_column(adata, key, "The object")
    except (KeyError, TypeError) as error:
        message = str(error.args[0]).replace("`labels_key`", f"`{argument}`")
        raise type(error)(message) from None


def _chosen(
    model: LatentModel, sections: Sequence[str] | str | None
) -> dict[str, tuple[SectionRule, str]]:
    """Return the rules of the sections, in the order of the page, with a reason to skip a section."""
    if sections is None:
        own = {name: rule for name, rule in SECTIONS.items() if _has(model, rule)}
        return {name: (rule, _too_large(model, rule)) for name, rule in own.items()}
    named = [sections] if isinstance(sections, str) else list(sections)
    choices = ", ".join(map(repr, SECTIONS))
    if unknown := [name for name in named if not isinstance(name, str) or name not in SECTIONS]:
        raise ValueError(f"`sections` has {unknown[0]!r}, but the sections are {choices}.")
    if not named:
        raise ValueError(f"`sections` is empty. Name some of {choices}, or pass None.")
    return {name: (rule, "") for name, rule in SECTIONS.items() if name in named}


def _has(model: LatentModel, rule: SectionRule) -> bool:
    """Return True if a model has the method of a section."""
    is_effect_rule = rule.tests == ("effects",)
    # models of counts have another method of this name
    if is_effect_rule and not hasattr(model, "conditions"):
        return False
    return not rule.needs or hasattr(model, rule.needs)


def _too_large(model: LatentModel, rule: SectionRule) -> str:
    """Return why a slow section is skipped, or an empty text."""
    if model.adata is None or rule.most_entries is None:
        return ""
    n_cells = model.adata.n_obs
    n_features = sum(len(model.features(name)) for name in model.modalities)
    if n_cells * n_features <= rule.most_entries:
        return ""
    return (
        f"This section is slow, and the data are large: {n_cells:,} cells times {n_features:,} features, "
        f"more than {rule.most_entries:,} values. To make it, name it: sections=[...]"
    )


def _made(results: Results, rule: SectionRule, reason: str) -> Section:
    """Return a section, or a section that says why it was not made. Warnings are kept as text."""
    if reason:
        return Section("skipped", reason, state="skipped")
    if not _has(results.model, rule):
        name = type(results.model).__name__
        text = f"{name} has no method for this section ({rule.call})."
        return Section("not available", text, state="not available")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            section = rule.make(results)
        except NOT_AVAILABLE as error:
            section = Section("not available", str(error), state="not available")
    texts = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    section.warnings = list(dict.fromkeys(texts))
    return section


def _content(model: LatentModel, made: dict[str, Section]) -> ReportContent:
    findings = [finding for section in made.values() for finding in section.findings]
    overall = _overall(model, made, findings)
    return {
        "model": type(model).__name__,
        "settings": cast("str", model._model_summary_string),
        "data": _data_in_words(model),
        "created": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "answer": overall.answer,
        "purposes": overall.by_purpose,
        "remarks": remarks_of(overall, findings, made),
        "answers": answers_of(overall, findings, made),
        "findings": [
            {
                "level": finding.level,
                "section": finding.section,
                "text": finding.text,
                "remedy": finding.remedy,
                "purposes": list(finding.purposes or overall.by_purpose),
            }
            for finding in findings
        ],
        "sections": {name: section_content(SECTIONS[name], one) for name, one in made.items()},
    }


def _data_in_words(model: LatentModel) -> str:
    """Return the size of the data in a sentence."""
    parts = [f"{len(model.features(name)):,} features" for name in model.modalities]
    if len(parts) > 1:
        names = zip(parts, model.modalities, strict=True)
        parts = [f"{part} of {name}" for part, name in names]
    return f"{model.adata.n_obs:,} cells, {', '.join(parts)}."


def _overall(model: LatentModel, made: dict[str, Section], findings: list[Finding]) -> Overall:
    """Return the verdict on the uses that this model has."""
    is_screen = hasattr(model, "conditions")
    left_out = {"genes", "conditions"} if is_screen else {"effects", "predictions"}
    if model.summary_stats.n_batch < 2:
        left_out.add("conditions")
    purposes = [name for name in PURPOSES if name not in left_out]
    tested = {
        purpose
        for name, section in made.items()
        if section.state == "available"
        for purpose in SECTIONS[name].tests
        if purpose not in section.untested
    }
    return overall_of(findings, purposes, {name: name in tested for name in purposes})
