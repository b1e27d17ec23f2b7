"""Sphinx configuration."""

from __future__ import annotations

import inspect
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import betavi
from betavi.likelihoods import DISPERSIONS, IMAGE_LIKELIHOODS, LIKELIHOODS
from betavi.model import REMEDIES
from betavi.nn import DECODERS, FUSIONS, LATENTS, PRIORS
from betavi.objective import SCHEDULES

sys.path.append(str(Path(__file__).parent))
from rooms import draw_rooms

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "betavi"
author = "the betavi developers"
release = betavi.__version__
extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # they are committed as executed, and tests execute them
nb_merge_streams = True
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
html_theme = "sphinx_book_theme"
html_title = "betavi"
exclude_patterns = ["_build", "_templates", "jupyter_execute", "generated/tables.md"]
templates_path = ["_templates"]
nitpicky = True
# what other packages document: nothing is downloaded to look it up
nitpick_ignore_regex = [(r"py:.*", r"(?!betavi).*")]

TUTORIALS = Path(__file__).parents[1] / "tutorials"
TABLES = {
    "gene_likelihood": ("betavi.likelihoods.LIKELIHOODS", LIKELIHOODS),
    "gene_likelihood of images": ("betavi.likelihoods.IMAGE_LIKELIHOODS", IMAGE_LIKELIHOODS),
    "dispersion": ("betavi.likelihoods.DISPERSIONS", DISPERSIONS),
    "latent_distribution": ("betavi.nn.LATENTS", LATENTS),
    "prior": ("betavi.nn.PRIORS", PRIORS),
    "decoder": ("betavi.nn.DECODERS", DECODERS),
    "fusion": ("betavi.nn.FUSIONS", FUSIONS),
    "beta_schedule": ("betavi.objective.SCHEDULES", SCHEDULES),
    "remedies": ("betavi.model.REMEDIES", REMEDIES),
}


def write_tables(app: Sphinx) -> None:
    """Write the tables of choices from the tables that the code reads."""
    lines = []
    for argument, (where, table) in TABLES.items():
        lines += [f"## `{argument}`", "", "```{eval-rst}", f".. py:data:: {where}", "```", ""]
        lines += ["| word | meaning |", "|---|---|"]
        for word, member in table.items():
            # what a model of one assay has is no choice
            if getattr(member, "is_of_one", False):
                continue
            # a remedy is a record of how it trains
            said = getattr(member, "train", None) if argument == "remedies" else member
            summary = (inspect.getdoc(said) or "").splitlines()[0]
            lines.append(f"| `{word}` | {summary.replace('``', '`')} |")
        lines.append("")
    target = Path(app.srcdir) / "generated" / "tables.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines))


def copy_tutorials(app: Sphinx) -> None:
    """Put the notebooks where Sphinx finds them: it reads nothing outside of its folder."""
    target = Path(app.srcdir) / "tutorials"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for notebook in TUTORIALS.glob("*.ipynb"):
        shutil.copy(notebook, target)


def write_rooms(app: Sphinx) -> None:
    """Draw the rooms from the contract that the import linter checks."""
    draw_rooms(TUTORIALS.parent / "pyproject.toml", Path(app.srcdir) / "generated" / "rooms.svg")


def setup(app: Sphinx) -> None:
    """Have everything that is written by code there before anything is read."""
    for write in (write_tables, copy_tutorials, write_rooms):
        app.connect("builder-inited", write)
