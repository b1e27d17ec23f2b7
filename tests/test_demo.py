"""Tests of the demo and of the README's example, with short training."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from benchmarks import peers
from betavi.datasets import pbmc_mosaic
from tutorials import demo

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(autouse=True)
def _needs_the_mosaic(monkeypatch):
    try:
        pbmc_mosaic()
    except ConnectionError as error:
        pytest.skip(str(error))
    mpl.use("Agg")
    yield
    plt.close("all")


def test_the_demo_writes_what_it_says(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "demo")
    monkeypatch.setitem(demo.TRAINING, "max_epochs", 2)
    monkeypatch.setattr(demo, "SHORTER", 2)
    # each worker has a core
    monkeypatch.setattr(peers, "THREADS", 1)
    demo.main()
    written = {path.name for path in (tmp_path / "demo").iterdir()}
    assert written == {
        "before_and_after.png",
        "collapse.png",
        "collapse_history.png",
        "denoised.h5ad",
        "denoised_genes.csv",
        "denoising.png",
        "generated.h5ad",
        "generated.h5mu",
        "joint_path.png",
        "map.png",
        "mosaic.png",
        "path.png",
        "pbmc.h5ad",
        "predictability.csv",
        "rate_distortion.csv",
        "rate_distortion.png",
        "support.png",
        "table.csv",
        "training.png",
        "translated_proteins.h5ad",
        "translation.png",
        "umap.png",
    }
    # a file is listed with the page that explains it
    assert written == {name for files in demo.PAGES.values() for name in files}
    assert all((README.parent / page).exists() for page in demo.PAGES)
    captured = capsys.readouterr()
    steps = re.findall(r"^(\d)\. ", captured.out, flags=re.MULTILINE)
    assert steps == list("1234567")
    assert "-ELBO (nats per held-out cell): BetaVI" in captured.out
    assert all(name in captured.out for name in written)
    # neither progress nor tips and devices
    assert not re.search(r"it/s|Epoch|Tip:|available:", captured.out + captured.err)


def test_the_example_of_the_readme_runs():
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(examples) == 2
    names: dict[str, object] = {}
    for example in examples:
        brief = example.replace("train()", "train(max_epochs=4)")
        brief = brief.replace("max_epochs=100", "max_epochs=4")
        assert brief != example
        exec(brief, names)
    assert names["adata"].obsm["X_betavi"].shape == (1200, 10)
    assert names["adata"].layers["denoised"].shape == (1200, 500)
    assert names["proteins"].shape == (1200, 224)
    assert names["paired"].n_obs == 500
