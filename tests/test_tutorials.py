"""The notebooks run, within their budget, and are committed as executed."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from betavi.datasets import pbmc_mosaic
from tutorials import execute
from tutorials.execute import executed, notebooks

ROOT = Path(__file__).parents[1]
NAMES = ["a_objective_by_hand", "b_from_scratch", "c_beta_and_collapse", "d_scanpy_workflow",
         "e_rosetta_stone", "f_map", "g_perturbations", "h_dimensions", "i_images", "j_large"]  # fmt: skip


def test_the_notebooks_are_those_that_the_documentation_lists():
    assert [path.stem for path in notebooks()] == NAMES


def shortened(path, folder):
    """Write a copy of a notebook that trains for a few epochs, and return its path."""
    notebook = nbformat.read(path, as_version=4)
    shorten = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests.brief import shorten\nshorten()"
    )
    notebook.cells.insert(0, nbformat.v4.new_code_cell(shorten))
    for cell in notebook.cells:
        # the loop of the first notebook, which does not call `train`
        cell.source = cell.source.replace("n_epochs=100", "n_epochs=10")
    nbformat.write(notebook, folder / path.name)
    return folder / path.name


@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    """A cell that fails raises here. `make tutorials` runs the notebooks at their full length."""
    try:
        pbmc_mosaic()
    except ConnectionError as error:
        pytest.skip(str(error))
    if "BETAVI_DATA_DIR" in path.read_text() and "BETAVI_DATA_DIR" not in os.environ:
        pytest.skip("BETAVI_DATA_DIR does not name a folder with the data of this notebook")
    again = executed(shortened(path, tmp_path))
    assert all(cell.execution_count for cell in again.cells if cell.cell_type == "code")


@pytest.mark.slow
def test_a_notebook_beyond_its_budget_fails(tmp_path, monkeypatch):
    cells = [nbformat.v4.new_code_cell("import time; time.sleep(60)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "slow.ipynb")
    monkeypatch.setattr(execute, "SECONDS", 5)
    with pytest.raises(TimeoutError):
        executed(tmp_path / "slow.ipynb")


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_executed(path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    pictures = [out for cell in cells for out in cell.outputs if "image/png" in out.get("data", {})]
    assert pictures
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]


@pytest.mark.parametrize("path", notebooks()[:3], ids=lambda path: path.stem)
def test_solutions_are_folded_away(path):
    notebook = nbformat.read(path, as_version=4)
    folded = [c for c in notebook.cells if "hide-cell" in c.metadata.get("tags", [])]
    assert len(folded) == 3
    # in Jupyter, too
    assert all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in folded)
