"""Sphinx configuration."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import betavi
from betavi.likelihoods import DISPERSIONS, LIKELIHOODS
from betavi.nn import FUSIONS, LATENTS, PRIORS
from betavi.objective import SCHEDULES

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "betavi"
author = "the betavi developers"
release = betavi.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
html_theme = "sphinx_book_theme"
exclude_patterns = ["_build", "generated/tables.md"]

TABLES = {
    "gene_likelihood": LIKELIHOODS,
    "dispersion": DISPERSIONS,
    "latent_distribution": LATENTS,
    "prior": PRIORS,
    "fusion": FUSIONS,
    "beta_schedule": SCHEDULES,
}


def write_tables(app: Sphinx) -> None:
    """Write the tables of choices from the tables that the code reads."""
    lines = []
    for argument, table in TABLES.items():
        lines += [f"## `{argument}`", "", "| word | meaning |", "|---|---|"]
        for word, member in table.items():
            summary = (inspect.getdoc(member) or "").splitlines()[0]
            lines.append(f"| `{word}` | {summary.replace('``', '`')} |")
        lines.append("")
    target = Path(app.srcdir) / "generated" / "tables.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines))


def setup(app: Sphinx) -> None:
    """Have the tables written before anything is read."""
    app.connect("builder-inited", write_tables)
