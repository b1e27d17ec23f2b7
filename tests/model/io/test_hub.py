"""A folder with a model card opens in scvi-tools' hub."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import betavi
from betavi import BetaVI, hub_card
from tests.model.io.conftest import SMALL, simulated

pytest.importorskip("huggingface_hub", reason="scvi.hub needs huggingface-hub")
pytest.importorskip("requests", reason="scvi.hub needs requests")


@pytest.fixture
def shared(fitted, tmp_path):
    """A folder as the documentation prepares it."""
    from scvi.hub import HubMetadata

    folder = tmp_path / "shared"
    fitted.save(folder, save_anndata=True)
    card = hub_card(fitted, "cc-by-4.0", "Simulated cells: {no} real ones | here.", tags=["blood"])
    (folder / "README.md").write_text(card, encoding="utf-8")
    metadata = HubMetadata.from_dir(str(folder), "0.12", model_parent_module="betavi")
    metadata.save(str(folder / "_scvi_required_metadata.json"))
    return folder


@pytest.mark.filterwarnings("ignore")
def test_a_folder_opens_in_scvis_hub(fitted, shared, capsys):
    from scvi.hub import HubModel

    hub = HubModel(str(shared))
    hub.load_model(accelerator="cpu")
    expected = fitted.get_latent_representation()
    np.testing.assert_allclose(hub.model.get_latent_representation(), expected, atol=1e-5)
    assert type(hub.model) is type(fitted)
    print(hub)
    assert type(fitted).__name__ in capsys.readouterr().out
    assert hub.adata.n_obs == fitted.adata.n_obs


@pytest.mark.filterwarnings("ignore")
def test_what_a_hub_downloads_is_enough(fitted, shared, tmp_path):
    """``HubModel.pull_from_huggingface_hub`` downloads these files only."""
    from scvi.hub import HubModel

    pulled = tmp_path / "pulled"
    pulled.mkdir()
    for name in ("model.pt", "_scvi_required_metadata.json", "adata.h5ad", "mdata.h5mu"):
        if (shared / name).exists():
            shutil.copy(shared / name, pulled)
    hub = HubModel(str(pulled), model_card=str(shared / "README.md"))
    expected = fitted.get_latent_representation()
    np.testing.assert_allclose(hub.model.get_latent_representation(), expected, atol=1e-5)


def test_the_header_is_read_by_the_hub(fitted, shared):
    from huggingface_hub import ModelCard

    card = ModelCard(content=(shared / "README.md").read_text())
    assert card.data.license == "cc-by-4.0"
    name = type(fitted).__name__
    assert {"betavi", f"model_cls_name:{name}", "blood"} <= set(card.data.tags)
    assert f"betavi.{name}.load" in card.text
    for feature in fitted.features(fitted.modalities[0])[:3]:
        assert repr(feature) in card.text
    assert "negative ELBO of training cells" in card.text


def test_an_untrained_model_has_a_card():
    model = BetaVI(simulated("BetaVI"), beta=(0.1, 4), **SMALL)
    card = hub_card(model, license_info='quoted "name": x')
    assert '\nlicense: "quoted \\"name\\": x"\n' in card
    assert "| trained | False |" in card
    assert "| beta | (0.1, 4) |" in card
    assert f"| betavi | {betavi.__version__} |" in card
    setup = card.split("```json\n")[1].split("```")[0]
    assert json.loads(setup)["batch_key"] == "batch"
