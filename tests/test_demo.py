"""Tests of the demo and of the README's example, with short training."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from benchmarks import peers
from betavi.datasets import pbmc_mosaic
from tests.brief import repeat_less
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


@pytest.mark.slow
def test_the_demo_writes_what_it_says(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "demo")
    monkeypatch.setitem(demo.TRAINING, "max_epochs", 2)
    monkeypatch.setattr(demo, "SHORTER", 2)
    repeat_less(monkeypatch.setattr)
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
        "effects.png",
        "generated.h5ad",
        "generated.h5mu",
        "joint_path.png",
        "map.png",
        "mosaic.png",
        "path.png",
        "pbmc.h5ad",
        "predicted_pair.csv",
        "predictability.csv",
        "rate_distortion.csv",
        "rate_distortion.png",
        "report_betavi.html",
        "report_effectvi.html",
        "report_jointvi.html",
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
    assert steps == list("123456789")
    assert "-ELBO (nats per held-out cell): BetaVI" in captured.out
    assert all(name in captured.out for name in written)
    # neither progress nor tips and devices
    assert not re.search(r"it/s|Epoch|Tip:|available:", captured.out + captured.err)


@pytest.mark.slow
def test_the_example_of_the_readme_runs(capsys):
    text = README.read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    brief = example.replace("train(train_size", "train(max_epochs=4, train_size")
    assert brief != example
    names: dict[str, object] = {}
    exec(brief, names)
    assert names["adata"].obsm["X_betavi"].shape == (1200, 10)
    assert names["adata"].layers["denoised"].shape == (1200, 500)
    assert len(names["outliers"]) == 240
    # the README shows what a longer training prints: numbers differ, words do not
    (shown,) = re.findall(r"```text\n(.*?)```", text, flags=re.DOTALL)
    printed = capsys.readouterr().out
    assert "of 10 dimensions carry signal" in printed
    assert shown.splitlines()[1].split() == printed.splitlines()[-5].split()
