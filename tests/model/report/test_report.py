"""The page and the dictionary of the trust report, and what bad input gets."""

from __future__ import annotations

import json
import warnings

import anndata
import matplotlib.pyplot as plt
import mudata
import numpy as np
import pytest
import torch

from betavi import BetaVI, EffectVI, JointVI
from betavi.datasets import (
    simulate_counts,
    simulate_filaments,
    simulate_multiome,
    simulate_perturbations,
)
from betavi.diagnostics.trust import Finding, Overall
from betavi.model.report import page, report
from betavi.model.report.content import answers_of, remarks_of
from betavi.model.report.results import Results
from betavi.model.report.section import Section
from betavi.model.report.sections import SECTIONS
from tests.brief import repeat_less
from tests.conftest import BRIEF
from tests.model.report.markup import Page, first_screen

QUIET = {"show_progress": False}
FAST = ["data", "training", "latent", "counts", "cells", "dimensions"]


@pytest.fixture(autouse=True)
def _less(monkeypatch):
    repeat_less(monkeypatch.setattr)


@pytest.fixture
def trained():
    adata = simulate_counts(n_cells=200, n_genes=30, n_batches=2, seed=0)
    # names that HTML and file formats give a meaning
    adata.obs["batch"] = adata.obs["batch"].map(
        {"batch_0": "<script>a</script>", "batch_1": "b & c"}
    )
    adata.obs["a&b"] = np.where(np.arange(200) % 2, "x/y", "z")
    adata.var_names = [f"<b>{name}" for name in adata.var_names]
    BetaVI.setup_anndata(
        adata, batch_key="batch", labels_key="cell_type", categorical_covariate_keys=["a&b"]
    )
    model = BetaVI(adata, n_latent=3)
    model.train(**BRIEF, train_size=0.7)
    return model


def without_time(content):
    return {name: part for name, part in content.items() if name != "created"}


def test_a_page_is_well_formed_and_loads_nothing(trained, tmp_path):
    path = tmp_path / "report.html"
    content = trained.report(path, **QUIET)
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    assert found.faults == []
    assert found.title == f"Trust report of BetaVI: {content['answer']}"
    # the latent space has no signal after 2 epochs, so the cells have no picture
    assert len(found.alts) == 4
    assert path.stat().st_size < 5e6
    assert [*content["sections"]] == [
        name for name in SECTIONS if name not in {"effects", "interactions"}
    ]
    for section in content["sections"].values():
        assert section["heading"] in found.text
        assert section["sentence"][:60] in found.text
    # what a user named is text
    assert "<script>" not in text.replace("&lt;script&gt;", "")
    assert "<b>gene_" in found.text
    assert list(tmp_path.iterdir()) == [path]
    assert not plt.get_fignums()


def test_the_first_screen_has_the_verdict_and_four_answers(trained, tmp_path):
    content = trained.report(tmp_path / "a.html", **QUIET)
    screen = first_screen((tmp_path / "a.html").read_text(encoding="utf-8"))
    for question in (
        "Is the model usable?",
        "For which genes?",
        "For which cells?",
        "should be changed?",
    ):
        assert question in screen
    assert content["answer"].capitalize() in screen
    for finding in content["findings"]:
        assert finding["text"][:50] in screen
    for change in content["answers"]["changes"]:
        assert change[:50] in screen


def test_the_content_is_json_and_survives_a_file(trained, tmp_path):
    adata = trained.adata
    adata.uns["betavi"] = {"mine": 1}
    content = trained.report(**QUIET)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    adata.write_h5ad(tmp_path / "a.h5ad")
    read = anndata.read_h5ad(tmp_path / "a.h5ad").uns["betavi"]
    assert read["mine"] == 1
    assert read["report"]["answer"] == content["answer"]
    genes = next(t for t in content["sections"]["denoising"]["tables"] if "gene" in t["columns"])
    stored = next(
        t
        for t in read["report"]["sections"]["denoising"]["tables"].values()
        if "gene" in t["columns"]
    )
    np.testing.assert_array_equal(stored["columns"]["gene"], genes["columns"]["gene"])
    # the model is unchanged, and can be used with the object
    assert trained.get_latent_representation().shape == (200, 3)


def test_a_joint_report_survives_a_file(tmp_path):
    mdata = simulate_multiome(
        n_cells=200, n_genes=20, n_proteins=6, n_batches=2, missing={"adt": 0.3}
    )
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"}, batch_key="batch")
    model = JointVI(mdata, n_latent=3)
    model.train(**BRIEF, train_size=0.6)
    content = model.report(tmp_path / "a.html", **QUIET)
    assert Page((tmp_path / "a.html").read_text(encoding="utf-8")).faults == []
    assert {"map", "dimensions", "genes", "conditions"} == content["purposes"].keys()
    table = content["sections"]["calibration"]["tables"][-1]["columns"]
    assert table["prediction"][:2] == ["adt from rna", "rna from adt"][: len(table["prediction"])]
    if content["purposes"]["genes"] != "not usable":
        first = (
            f"adt from rna: {table['predictable features'][0]} of 6 features, median correlation"
        )
        assert first in content["answers"]["genes"]
    mdata.write_h5mu(tmp_path / "a.h5mu")
    read = mudata.read_h5mu(tmp_path / "a.h5mu").uns["betavi"]["report"]
    assert read["answers"]["usable"] == content["answers"]["usable"]


def test_a_report_of_a_screen_judges_effects(tmp_path):
    screen = simulate_perturbations(n_cells=600, n_genes=60, n_perturbations=3, n_combinations=2)
    screen.obs["batch"] = np.where(screen.obs["perturbation"] == "P1", "late", "early")
    EffectVI.setup_anndata(screen, perturbation_key="perturbation", batch_key="batch")
    model = EffectVI(screen, n_latent=3)
    with pytest.warns(UserWarning, match="cannot be separated"):
        model.train(**BRIEF, train_size=0.8)
    content = model.report(tmp_path / "a.html", **QUIET)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert Page(text).faults == []
    assert {"map", "dimensions", "effects", "predictions"} == content["purposes"].keys()
    assert content["purposes"]["effects"] != "usable"
    # a reason stands beside the answer
    assert "effects are confounded" in content["remarks"]["effects"]
    assert "effects are confounded" in first_screen(text)
    assert "P1" in first_screen(text)


def test_the_same_seed_gives_the_same_report(trained, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = trained.report(tmp_path / "a.html", sections=FAST, **QUIET)
    assert torch.equal(torch.get_rng_state(), before)
    other = trained.report(tmp_path / "b.html", sections=FAST, **QUIET)
    assert without_time(one) == without_time(other)
    pages = [(tmp_path / name).read_text().replace(c["created"], "")
             for name, c in (("a.html", one), ("b.html", other))]  # fmt: skip
    assert pages[0] == pages[1]


def test_slow_sections_are_skipped_for_large_data_and_say_so(trained, monkeypatch):
    smaller = SECTIONS["denoising"]._replace(most_entries=200 * 30 - 1)
    monkeypatch.setitem(SECTIONS, "denoising", smaller)
    content = trained.report(**QUIET)
    assert content["sections"]["denoising"]["state"] == "skipped"
    assert "200 cells times 30 features" in content["sections"]["denoising"]["sentence"]
    assert content["sections"]["latent"]["state"] == "available"
    # a section that is named is made
    named = trained.report(sections="denoising", **QUIET)
    assert named["sections"]["denoising"]["state"] == "available"
    assert [*named["sections"]] == ["denoising"]


def test_a_question_without_evidence_is_not_answered():
    overall = Overall("usable", {"map": "usable", "genes": "not measured"})
    skipped = {"denoising": Section("skipped", "The data are large.", state="skipped")}
    found = answers_of(overall, [Finding("note", "data", "", "Do this.")], skipped)
    assert found["genes"] == "Not measured. The data are large."
    assert found["cells"].startswith("Not measured. Add the section")
    # a note changes nothing
    assert found["changes"] == ["Nothing has to be changed."]
    wrong = overall._replace(by_purpose={"map": "not usable", "genes": "not usable"})
    stopped = [Finding("stop", "data", "The values are not counts.", "Do this.")] * 2
    found = answers_of(
        wrong._replace(answer="not usable"), [*stopped, Finding("care", "a", "", "x")], skipped
    )
    assert found["genes"] == found["cells"] == "None. The values are not counts."
    # effects do not read the latent space
    screen = overall._replace(by_purpose={"map": "not usable", "effects": "usable"})
    collapsed = [Finding("stop", "latent", "Collapsed.", "Rescue.", ("map", "genes"))]
    found_of_screen = answers_of(
        screen, collapsed, {"effects": Section("", "", answer="All effects.")}
    )
    assert (found_of_screen["genes"], found_of_screen["cells"]) == (
        "All effects.",
        "For a map of single cells: none. Collapsed. Effects are means over many cells.",
    )
    # the first change is not more training
    assert found["changes"] == ["Do this."]
    # nor is it for a use that is ruled out
    care = [
        Finding("care", "a", "", remedy, (use,)) for use, remedy in (("map", "x"), ("effects", "y"))
    ]
    assert answers_of(screen, [*collapsed, *care], {})["changes"] == ["Rescue.", "y"]


def test_an_answer_has_its_reason_and_its_limit():
    sections = {"latent": Section("", "", remarks={"map": "Limit.", "genes": "Limit."})}
    findings = [
        Finding("stop", "a", "Wrong values. More.", "x", ("genes",)),
        Finding("care", "b", "Short training. More.", "x", ("map", "genes")),
        Finding("note", "c", "A note.", "", ("map", "dimensions")),
    ]
    answers = {"map": "usable with care", "genes": "not usable", "dimensions": "usable"}
    assert remarks_of(Overall("usable with care", answers), findings, sections) == {
        "map": "Short training. Limit.",
        "genes": "Wrong values.",
        "dimensions": "",
    }


def test_code_in_a_text_is_code_and_names_break_only_at_underscores():
    assert page._with_code("Pass `a<b` & go.") == "Pass <code>a&lt;b</code> &amp; go."
    assert page._breakable("a_<b") == "a_<wbr>&lt;b"


def test_cells_of_a_latent_space_without_signal_are_not_listed(trained, monkeypatch, tmp_path):
    monkeypatch.setattr(Results, "has_signal", False)
    content = trained.report(tmp_path / "a.html", sections=["cells", "dimensions"], **QUIET)
    section = content["sections"]["cells"]
    assert (section["verdict"], section["lists"]) == ("not interpretable", {})
    assert not any(finding["section"] == "cells" for finding in content["findings"])
    # the page has no table of cells, but the content has all p-values
    assert "outlier_" not in Page((tmp_path / "a.html").read_text(encoding="utf-8")).text
    assert len(section["tables"][0]["columns"]["p_value"]) == 200


def test_new_cells_are_judged_in_place_of_the_models_own(trained, monkeypatch):
    monkeypatch.setattr(Results, "has_signal", True)
    new = trained.adata[:60].copy()
    content = trained.report(adata=new, sections="cells", **QUIET)
    assert content["sections"]["cells"]["sentence"].startswith("New cells: ")
    assert len(content["sections"]["cells"]["tables"][0]["columns"]["cell"]) == 60
    assert "report" in trained.adata.uns["betavi"]
    assert "betavi" not in new.uns


def test_copies_of_the_batch_and_numbers_are_not_conditions(trained):
    obs = trained.adata.obs
    obs["rna:batch"] = obs["batch"].astype(object).where(np.arange(200) % 3 > 0)
    obs["site"] = obs["batch"].astype(str).str[:1]
    obs["depth"] = np.arange(200.0)
    obs["name"] = obs.index.astype(str)
    content = trained.report(sections="data", **QUIET)
    (table,) = (t for t in content["sections"]["data"]["tables"] if "entropy" in t["caption"])
    assert set(table["columns"]["name"]) == {"obs['a&b']", "obs['cell_type']", "obs['site']"}
    (found,) = (f for f in content["findings"] if f["level"] == "stop")
    assert "obs['site']" in found["text"]


def test_a_condition_that_is_named_is_the_only_one_compared(trained):
    trained.adata.obs["stim"] = trained.adata.obs["batch"].astype(str).str[:1]
    content = trained.report(sections="data", condition_key="stim", **QUIET)
    assert content["purposes"]["conditions"] == "not usable"
    assert "groups of obs['stim']" in content["remarks"]["map"]
    assert content["answer"] == "usable with care"  # the other uses are not measured
    content = trained.report(sections="data", condition_key="cell_type", **QUIET)
    assert content["purposes"]["conditions"] == "usable"
    assert content["remarks"]["map"] == ""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"sections": ["latent", "colour"]},
            ValueError,
            "`sections` has 'colour'.*'rate_distortion'",
        ),
        ({"sections": []}, ValueError, "`sections` is empty"),
        ({"sections": [3]}, ValueError, "`sections` has 3"),
        ({"path": 3}, TypeError, "path of a file"),
        ({"path": "report.pdf"}, ValueError, r"`path` must end in \.html"),
        ({"path": "nowhere/report.html"}, FileNotFoundError, "folder that does not exist"),
        ({"labels_key": "celltype"}, KeyError, "`labels_key`.*cell_type"),
        ({"condition_key": "stim"}, KeyError, "`condition_key`"),
        ({"seed": -1}, ValueError, "`seed`"),
        ({"show_progress": 2}, TypeError, "`show_progress`"),
        ({"adata": "cells"}, (TypeError, ValueError, AttributeError), "adata|str"),
    ],
)
def test_bad_input_is_named_before_work(trained, tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "_made", lambda *_: pytest.fail("a section was made"))
    with pytest.raises(error, match=message):
        trained.report(**QUIET | {"path": "report.html"} | arguments)
    assert list(tmp_path.iterdir()) == []
    assert "betavi" not in trained.adata.uns


def test_an_untrained_and_a_minified_model_are_refused(trained):
    with pytest.raises(RuntimeError, match=r"not trained.*model\.train\(\)"):
        trained.sibling().report()
    adata = trained.adata
    adata.obsm["m"], adata.obsm["v"] = trained.get_latent_representation(return_dist=True)
    trained.minify_adata(use_latent_qzm_key="m", use_latent_qzv_key="v")
    with pytest.raises(ValueError, match="`report` needs counts"):
        trained.report()


def test_a_section_that_is_impossible_says_why(trained, monkeypatch, tmp_path):
    def fail(results):
        raise ValueError("There are too few cells.")

    monkeypatch.setitem(SECTIONS, "counts", SECTIONS["counts"]._replace(make=fail))
    content = trained.report(tmp_path / "a.html", sections=["counts", "data"], **QUIET)
    assert content["sections"]["counts"]["state"] == "not available"
    assert "too few cells" in Page((tmp_path / "a.html").read_text(encoding="utf-8")).text


def test_warnings_of_a_section_are_on_the_page_and_nowhere_else(trained, monkeypatch):
    make = SECTIONS["data"].make

    def warned(results):
        warnings.warn("A batch is small.", UserWarning, stacklevel=1)
        return make(results)

    monkeypatch.setitem(SECTIONS, "data", SECTIONS["data"]._replace(make=warned))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = trained.report(sections="data", **QUIET)
    assert content["sections"]["data"]["warnings"] == ["A batch is small."]


@pytest.mark.parametrize("fault", ["a section", "the page", "the file"])
def test_a_failed_call_leaves_object_and_file(trained, tmp_path, monkeypatch, fault):
    def fail(*_):
        raise OSError("The disk is full.")

    if fault == "a section":
        monkeypatch.setitem(SECTIONS, "data", SECTIONS["data"]._replace(make=fail))
    else:
        place = (report, "page_of") if fault == "the page" else (page, "take_place")
        monkeypatch.setattr(*place, fail)
    path = tmp_path / "report.html"
    path.write_text("old")
    trained.adata.uns["betavi"] = {"mine": 1}
    with pytest.raises(OSError, match="disk is full"):
        trained.report(path, sections="data", **QUIET)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert trained.adata.uns["betavi"] == {"mine": 1}


def test_a_deterministic_model_has_a_report_without_a_diagnosis(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=3, latent_distribution="deterministic")
    model.train(**BRIEF)
    content = model.report(sections=["latent", "data"], **QUIET)
    assert content["sections"]["latent"]["state"] == "not available"
    assert content["purposes"]["map"] == "not measured"


def test_faults_of_a_page_are_found():
    """A check that cannot fail is a defect."""
    start = '<!DOCTYPE html><html lang="en"><body><h1>A</h1>'
    for part, word in [
        ("<h3>B</h3>", "h3 follows h1"),
        ('<img src="data:," alt="">', "no text"),
        ('<img src="x.png" alt="a b c d">', "refers to"),
        ('<a href="#none">x</a>', "refers to #none"),
        ("<p><b></p></b>", "closes another"),
        ("<script></script>", "runs code"),
        ("<table><caption>c</caption><tr><th>x</th></tr></table>", "no scope"),
        ("<table></table>", "no caption"),
        ('<p id="a"></p><p id="a"></p>', "twice"),
        ("<style>p { background: url(x) }</style>", "loads a file"),
    ]:
        assert any(word in fault for fault in Page(f"{start}{part}</body></html>").faults), part


@pytest.mark.parametrize("cls", [BetaVI, JointVI])
def test_images_are_reported_without_their_counts(cls, tmp_path):
    data = simulate_filaments(120, 32, n_genes=20, seed=0)
    if cls is BetaVI:
        data = data["image"].copy()
        cls.setup_anndata(data, image_key="image")
        model = cls(data, gene_likelihood="band_normal", n_latent=3)
    else:
        likelihoods = {"rna": "nb", "image": "band_normal"}
        cls.setup_mudata(data, likelihoods=likelihoods, image_keys={"image": "image"})
        model = cls(data, n_latent=3)
    model.train(**BRIEF, train_size=0.7)
    sections = model.report(tmp_path / "report.html", **QUIET)["sections"]
    assert sections["data"]["verdict"] == "in order"
    assert "shape of an image" in str(sections["data"]["tables"])
    for name in ("latent", "cells"):
        assert sections[name]["verdict"] != "not available"
    assert "images" in sections["dimensions"]["sentence"]
