"""What the documentation says runs, and links to what is there."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import sys
from functools import cache
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

import betavi
from betavi.datasets import pbmc_mosaic
from betavi.diagnostics import CAUSES
from betavi.diagnostics.choice import CRITERIA
from betavi.diagnostics.smoothing import BASELINES
from betavi.likelihoods import DISPERSIONS, LIKELIHOODS
from betavi.model.core.latent_model import LatentModel
from betavi.model.denoising.estimate import ESTIMATES
from betavi.model.expression.groups import MODES
from betavi.model.expression.translation import SCALES
from betavi.model.generation.interpolate import PATHS
from betavi.model.generation.sources import SOURCES
from betavi.nn import DECODERS, FUSIONS, LATENTS, PRIORS
from betavi.objective import SCHEDULES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md",
         *sorted(DOCS.glob("*.md")), *sorted((DOCS / "guide").glob("*.md"))]  # fmt: skip
PUBLIC = re.findall(r"^   (betavi\.\S+)$", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
TABLES = (LIKELIHOODS, FUSIONS, SCHEDULES, CAUSES)


def examples(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


def found(name):
    """Return the object of a dotted name."""
    value = betavi
    for part in name.split(".")[1:]:
        # a function may have the name of the file that it is in
        value = getattr(value, part, None) or importlib.import_module(f"{value.__name__}.{part}")
    return value


def offered():
    """Return by name the functions and classes of every room, and the members of every table."""
    files = list(pkgutil.walk_packages(betavi.__path__, "betavi."))
    modules = {file.name: importlib.import_module(file.name) for file in files}
    rooms = [file.name for file in files if file.ispkg]
    names = {}
    for room in rooms:
        for name in getattr(modules[room], "__all__", ()):
            value = getattr(modules[room], name)
            if is_documented(value):
                names.setdefault(value, f"{room}.{name}")
    for module in modules.values():
        for value in members(module):
            names.setdefault(value, f"{value.__module__}.{value.__name__}")
    return {name: value for value, name in names.items()}


def members(module):
    """Return what words stand for in the tables of a module, but for private functions."""
    tables = [v for k, v in vars(module).items() if k.isupper() and isinstance(v, dict)]
    pairs = [pair for table in tables for pair in table.items()]
    values = [value for word, value in pairs if isinstance(word, str) and is_documented(value)]
    return [value for value in values if value.__name__.isidentifier() and value.__name__[0] != "_"]


def is_documented(value):
    """Say whether it is a function or a class of this package."""
    is_one = inspect.isclass(value) or inspect.isfunction(value)
    return is_one and value.__module__.startswith("betavi.")


OFFERED = offered()
MEMBERS = {
    value
    for name, module in sys.modules.items()
    if name.startswith("betavi.")
    for value in members(module)
}


@cache
def collected(module):
    """Return the names of the examples that pytest finds in a module."""
    return {test.name for test in doctest.DocTestFinder().find(module) if test.examples}


@pytest.fixture
def _tables_as_they_were():
    before = [dict(table) for table in TABLES]
    yield
    for table, members in zip(TABLES, before, strict=True):
        table.clear()
        table.update(members)
    for cls in (betavi.BetaVI, betavi.JointVI):
        if hasattr(cls, "expected_totals"):
            del cls.expected_totals


@pytest.mark.slow
@pytest.mark.usefixtures("_tables_as_they_were")
def test_what_extends_the_package_runs():
    names = {}
    for example in examples("extending.md"):
        exec(example, names)
    assert "shallow_cells" in {cause.name for cause in names["model"].diagnose().causes}
    assert names["model"].history["beta"].iloc[-1, 0] == 2
    assert names["adata"].layers["denoised"].shape == names["adata"].shape


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_the_ten_minute_start_runs(tmp_path, monkeypatch):
    try:
        pbmc_mosaic()
    except ConnectionError as error:
        pytest.skip(str(error))
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    names = {}
    for example in examples("start.md"):
        exec(example, names)
    plt.close("all")
    assert names["table"]["p_value"].between(0, 1).all()
    assert names["new"].n_obs == 500
    assert names["proteins"].shape == (1200, 224)
    assert names["paired"].n_obs == 500
    assert (tmp_path / "my_model" / "model.pt").exists()


@pytest.mark.parametrize("name", sorted({*PUBLIC, *OFFERED}))
def test_a_public_name_is_documented_with_an_example(name):
    value = OFFERED.get(name) or found(name)
    text = inspect.cleandoc(value.__doc__ or "")
    assert ">>> " in text
    # and it is run along with the tests
    assert f"{value.__module__}.{value.__qualname__}" in collected(sys.modules[value.__module__])
    if value in MEMBERS:
        # its parameters are those of the family, and documented with the interface
        return
    taken = [p for p in inspect.signature(value).parameters.values() if is_asked_for(p)]
    assert not taken or "Parameters\n----------" in text
    if name in OFFERED and inspect.isfunction(value):
        assert re.search(r"^(Returns|Yields)\n-----", text, flags=re.MULTILINE)


def is_asked_for(parameter):
    """Say whether a parameter has a name of its own, and is not filled in by a method's call."""
    is_rest = parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    return not is_rest and parameter.name not in {"self", "cls"}


def test_rooms_and_tables_are_all_looked_at():
    for table in (
        LIKELIHOODS,
        DISPERSIONS,
        FUSIONS,
        LATENTS,
        PRIORS,
        DECODERS,
        SCHEDULES,
        BASELINES,
    ):
        assert set(table.values()) <= set(OFFERED.values())
    rooms = {name.split(".")[1] for name in OFFERED}
    assert {"nn", "kernels", "train", "module", "model", "pl", "metrics", "datasets"} <= rooms


def test_every_public_name_has_a_page():
    rooms = ("pl", "metrics", "datasets")
    names = {f"betavi.{room}.{name}" for room in rooms for name in found(f"betavi.{room}").__all__}
    names |= {f"betavi.{name}" for name in betavi.__all__ if callable(found(f"betavi.{name}"))}
    for model in (betavi.BetaVI, betavi.JointVI, betavi.EffectVI):
        own = {name for name in dir(model) if not name.startswith("_") and is_ours(model, name)}
        # the primitives that abilities are built on; docs/extending.md shows their use
        own -= vars(LatentModel).keys()
        names |= {f"betavi.{model.__name__}.{name}" for name in own}
    # what a model refuses, under scvi-tools' names
    refused = {
        "betavi.JointVI.minify_adata", "betavi.JointVI.setup_anndata",
        "betavi.JointVI.prepare_query_anndata", "betavi.BetaVI.prepare_query_mudata",
        "betavi.JointVI.convert_legacy_save", "betavi.BetaVI.convert_legacy_save",
        "betavi.EffectVI.prepare_query_mudata", "betavi.EffectVI.convert_legacy_save",
        "betavi.EffectVI.minify_adata",
    }  # fmt: skip
    assert names - set(PUBLIC) <= refused


def is_ours(model, name):
    value = inspect.unwrap(getattr(model, name))
    return callable(value) and (getattr(value, "__module__", "") or "").startswith("betavi")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Sphinx checks references of its own kind; this, files and the pictures of the README."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        path = target.split("#")[0]
        if not path or re.match(r"[a-z]+:", path):
            continue
        # notebooks are copied beside the pages when these are built
        at = ROOT / path if path.startswith("tutorials/") else page.parent / path
        assert at.exists(), target


def test_every_word_of_a_method_is_among_the_choices():
    page = (DOCS / "guide" / "choices.md").read_text()
    for table in (SOURCES, PATHS, ESTIMATES, SCALES, CRITERIA, MODES):
        for word in table:
            assert f"| `{word}` |" in page


def anchors_of(page):
    """Return the anchors of headings, as MyST and GitHub make them, and MyST's explicit targets."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_are_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for path, anchor in re.findall(r"\]\(([^)\s#]*)#([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", path):
            assert anchor in anchors_of(page.parent / path if path else page), (path, anchor)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_waits_for_its_numbers(page):
    assert not re.search(r"@[A-Z_]+@|\{\{[A-Z_]+\}\}", page.read_text())


def test_what_is_said_to_run_exists():
    """Commands of the form ``python -m benchmarks.x`` and ``make x``."""
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        text = page.read_text()
        for room, name in re.findall(r"python -m (benchmarks|docs|tutorials)\.(\w+)", text):
            assert (ROOT / room / f"{name}.py").exists(), (page.name, name)
        assert set(re.findall(r"`make ([a-z]+)`", text)) <= rules
    table = (DOCS / "benchmarks.md").read_text()
    listed = set(re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, flags=re.MULTILINE))
    for name in re.findall(r"`(\w+)`", " ".join(listed)):
        assert (ROOT / "benchmarks" / f"{name}.py").exists(), name


def test_an_anchor_is_that_of_its_heading():
    assert {"when-not-to-use-it", "what-it-costs"} <= anchors_of(DOCS / "guide" / "map.md")
    assert "nowhere" not in anchors_of(DOCS / "guide" / "map.md")
