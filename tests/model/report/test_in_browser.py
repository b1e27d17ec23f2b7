"""The page of the trust report in headless Chromium, on a phone's and on a desk's screen."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from betavi import BetaVI
from betavi.datasets import simulate_counts
from tests.brief import repeat_less
from tests.conftest import BRIEF
from tests.model.report.markup import Page

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
           "--disable-background-networking", "--enable-logging=stderr", "--dump-dom"]  # fmt: skip
MEASURE = """
<script>
function luminance(colour) {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}
function background(element) {
  for (let one = element; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
}
function contrast(element) {
  const pair = [luminance(getComputedStyle(element).color), luminance(background(element))].sort();
  return (pair[1] + 0.05) / (pair[0] + 0.05);
}
window.onload = () => {
  const texts = [...document.body.querySelectorAll("*")].filter(one => one.tagName !== "SCRIPT"
    && [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()));
  parent.postMessage(JSON.stringify({
    width: innerWidth,
    overflow: document.scrollingElement.scrollWidth - document.documentElement.clientWidth,
    broken: [...document.images].filter(one => !one.complete || !one.naturalWidth).length,
    contrast: Math.min(...texts.map(contrast)),
    smallest: Math.min(...texts.map(one => parseFloat(getComputedStyle(one).fontSize))),
    requests: performance.getEntriesByType("resource").map(one => one.name)
      .filter(name => !name.startsWith("data:")),
  }), "*");
};
</script>
"""
FRAME = """<!DOCTYPE html><html><head><title></title></head><body>
<script>onmessage = event => { document.title = event.data; };</script>
<iframe src="page.html" width="{width}" height="900" style="border: 0"></iframe></body></html>
"""
"""A page in the page: a window of the browser is at least 500 pixels wide."""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


def measured(browser, page, width, folder, more=""):
    """Return measurements of a page in the browser, and what the browser logged about it."""
    whole = page.replace("</body>", f"{more}{MEASURE}</body>")
    (folder / "page.html").write_text(whole, encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME.replace("{width}", str(width)), encoding="utf-8")
    done = subprocess.run(
        [browser, *OPTIONS, f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000",
         "--virtual-time-budget=5000", frame.as_uri()],
        capture_output=True, text=True, timeout=1500, check=True,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(Page(done.stdout).title), console


def test_a_page_fits_screens_and_is_readable(browser, tmp_path, monkeypatch):
    repeat_less(monkeypatch.setattr)
    adata = simulate_counts(n_cells=200, n_genes=30, n_batches=2, seed=0)
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata, n_latent=3)
    model.train(**BRIEF, train_size=0.7)
    model.report(tmp_path / "report.html", show_progress=False)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for width in (360, 1200):
        found, console = measured(browser, page, width, tmp_path)
        assert console == []
        assert found["width"] == width
        assert found["overflow"] <= 0
        assert found["broken"] == 0
        assert found["requests"] == []
        # of the guidelines for the accessibility of web content, level AA
        assert found["contrast"] >= 4.5
        assert found["smallest"] >= 12
    # and the measurements can fail
    wrong = "<script>console.error('wrong')</script>"
    wrong += '<div style="color: #999; width: 3000px">pale</div><img src="http://127.0.0.1:65000/x.png" alt="">'
    found, console = measured(browser, page, 1200, tmp_path, wrong)
    assert found["overflow"] > 0
    assert found["broken"] == 1
    assert found["contrast"] < 4.5
    assert len(found["requests"]) == 1
    assert console
