"""Models come back from their files as they were, and damage is named."""

from __future__ import annotations

import inspect
import json
import shutil
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy import sparse
from scvi.model import SCVI
from scvi.model.base._archesmixin import _get_loaded_data

import betavi
from betavi import BetaVI, JointVI, convert
from betavi.data import DataSplitter
from betavi.likelihoods import DISPERSIONS, LIKELIHOODS
from betavi.model.io import files
from betavi.model.io.files import read, writers_of
from betavi.model.io.saved import saved_from, separate
from betavi.model.reference.query import opened
from betavi.nn import FUSIONS, LATENTS, PRIORS
from tests.conftest import BRIEF
from tests.killing import killed_at, number_of_moments
from tests.model.io.conftest import LIKELIHOODS as LIKELIHOOD_OF
from tests.model.io.conftest import SMALL, simulated
from tests.model.io.test_typed_json import same

NOT_SAVED = {"run_id_", "run_name_"}


def check_same(model, loaded):
    """Weights, settings, registry and history are equal."""
    one, other = (saved_from(each, False, None) for each in (model, loaded))
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype
        assert torch.equal(tensor.nan_to_num(7.0), other.tensors[name].nan_to_num(7.0)), name
    assert same(one.var_names, other.var_names)
    for name in one.attributes.keys() - {"registry_"}:
        assert same(one.attributes[name], other.attributes[name]), name
    stored = one.attributes["registry_"]
    assert same(json_like(stored), json_like(other.attributes["registry_"]))


def json_like(registry):
    """Return a registry without identifiers of one object, and with plain dictionaries."""
    if isinstance(registry, dict):
        return {k: json_like(v) for k, v in sorted(registry.items()) if not k.startswith("scvi_")}
    return registry


def round_trip(model, folder, **kwargs):
    model.save(folder, overwrite=True)
    loaded = type(model).load(folder, model.adata.copy(), **kwargs)
    check_same(model, loaded)
    return loaded


def test_every_file_is_written(fitted, tmp_path):
    fitted.save(tmp_path / "model", save_anndata=True)
    data = "adata.h5ad" if isinstance(fitted, BetaVI) else "mdata.h5mu"
    found = {path.name for path in (tmp_path / "model").iterdir()}
    assert found == {"model.json", "model.safetensors", "model.pt", data}
    loaded = type(fitted).load(tmp_path / "model")
    check_same(fitted, loaded)
    without = type(fitted).load(tmp_path / "model", adata=False)
    assert without.adata is None
    # a model without an object is saved too
    check_same(fitted, round_trip_without(without, tmp_path / "again", fitted.adata))


def round_trip_without(model, folder, data):
    model.save(folder)
    return type(model).load(folder, data.copy())


def test_positions_are_those_of_the_model(fitted, tmp_path):
    loaded = round_trip(fitted, tmp_path / "model")
    found, expected = (each.get_latent_representation() for each in (loaded, fitted))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_likelihood(tmp_path, likelihood):
    data = simulated("JointVI")
    chosen = {"rna": "zinb", "adt": likelihood, "atac": "bernoulli"}
    if likelihood == "bernoulli":
        data["adt"].X = (data["adt"].X > 0).astype(np.float32)
    JointVI.setup_mudata(data, chosen, batch_key="batch")
    round_trip(JointVI(data, **SMALL), tmp_path / "model")


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if name != "single"])
def test_every_fusion(tmp_path, fusion):
    round_trip(JointVI(simulated("JointVI"), fusion=fusion, **SMALL), tmp_path / "model")


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("latent", LATENTS)
def test_every_prior_and_latent_distribution(tmp_path, prior, latent):
    data = simulated("BetaVI", categorical_covariate_keys=["cell_type"])
    try:
        model = BetaVI(data, prior=prior, latent_distribution=latent, **SMALL)
    except ValueError as error:
        pytest.skip(f"these exclude each other: {error}")
    model.train(**BRIEF)
    round_trip(model, tmp_path / "model")


@pytest.mark.parametrize("dispersion", DISPERSIONS)
def test_every_dispersion(tmp_path, dispersion):
    data = simulated("BetaVI", labels_key="cell_type")
    model = BetaVI(data, dispersion=dispersion, gene_likelihood="nb", **SMALL)
    round_trip(model, tmp_path / "model")


@pytest.mark.parametrize(
    "options",
    [
        {"beta": (0.1, 4)},
        {"beta": (np.float32(0.5), np.int64(4))},
        {"use_observed_lib_size": False},
        {"batch_representation": "embedding"},
        {"var_activation": torch.nn.functional.softplus},
        {"extra_encoder_kwargs": {"activation_fn": torch.nn.ELU}},
        {"encode_covariates": True, "deeply_inject_covariates": False},
    ],
    ids=str,
)
def test_options(tmp_path, options):
    round_trip(BetaVI(simulated("BetaVI"), **SMALL, **options), tmp_path / "model")


COLUMNS = {
    "text": ["a", "b", "c"] * 20,
    "numbers": np.arange(60, dtype=np.int64) % 3,
    "small": (np.arange(60) % 3).astype(np.int8),
    "fractions": np.arange(60) % 3 + 0.5,
    "flags": np.arange(60) % 2 == 0,
    "categories": pd.Categorical(["x", "y"] * 30, categories=["y", "x"]),
    "of numbers": pd.Categorical(np.arange(60) % 3 * 10),
    "nullable": pd.array([1, 2, 3] * 20, dtype="Int64"),
    "nullable text": pd.array(["u", "v"] * 30, dtype="string"),
    "nullable flags": pd.array([True, False] * 30, dtype="boolean"),
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("key", ["batch_key", "labels_key", "categorical_covariate_keys"])
def test_every_kind_of_column(tmp_path, column, key):
    data = simulated("BetaVI")
    data.obs["column"] = COLUMNS[column]
    value = ["column"] if key.endswith("keys") else "column"
    try:
        BetaVI.setup_anndata(data, **{key: value})
    except (ValueError, TypeError) as error:
        pytest.skip(f"the column is refused: {error}")
    loaded = round_trip(BetaVI(data, **SMALL), tmp_path / "model")
    query = data[:20].copy()
    mapped = BetaVI.load_query_data(query, tmp_path / "model")
    assert mapped.summary_stats.n_batch == loaded.summary_stats.n_batch


def test_arguments_of_the_setup_keep_their_types(tmp_path):
    data = simulated("BetaVI")
    data.obs["age"] = np.linspace(0, 1, 60)
    data.obs["size"] = 1.0
    for several in (("cell_type",), np.array(["cell_type"]), pd.Index(["cell_type"])):
        BetaVI.setup_anndata(
            data, batch_key="batch", categorical_covariate_keys=several,
            continuous_covariate_keys=["age"], size_factor_key="size",
        )  # fmt: skip
        round_trip(BetaVI(data, **SMALL), tmp_path / "model")


@pytest.mark.filterwarnings("ignore")
def test_minified_models_and_queries(fitted, tmp_path):
    is_joint = isinstance(fitted, JointVI)
    query = fitted.adata.copy()
    query.obs["batch"] = "new"
    mapped = type(fitted).load_query_data(query, fitted)
    mapped.train(**BRIEF)
    loaded = round_trip(mapped, tmp_path / "query")
    assert loaded.summary_stats.n_batch == 3
    if not is_joint:
        posterior = fitted.get_latent_representation(return_dist=True)
        fitted.adata.obsm["X_latent_qzm"], fitted.adata.obsm["X_latent_qzv"] = posterior
    getattr(fitted, "minify_mudata" if is_joint else "minify_adata")()
    expected = fitted.get_latent_representation()
    fitted.save(tmp_path / "minified", save_anndata=True)
    minified = type(fitted).load(tmp_path / "minified")
    assert minified.minified_data_type == fitted.minified_data_type
    check_same(fitted, minified)
    np.testing.assert_allclose(minified.get_latent_representation(), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["BetaVI", "JointVI"])
def test_counts_in_a_layer_beside_an_empty_matrix(tmp_path, name):
    """An object is minified if the matrix that the setup names is empty."""
    cls, data = {"BetaVI": BetaVI, "JointVI": JointVI}[name], simulated(name)
    part = data if name == "BetaVI" else data["rna"]
    part.layers["counts"] = sparse.csr_matrix(part.X)
    part.X = sparse.csr_matrix(part.shape, dtype=np.float32)
    if name == "BetaVI":
        BetaVI.setup_anndata(data, layer="counts")
    else:
        JointVI.setup_mudata(data, LIKELIHOOD_OF, layers={"rna": "counts"})
    model = cls(data, **SMALL)
    model.save(tmp_path, overwrite=True, save_anndata=True)
    check_same(model, cls.load(tmp_path))
    part.layers["counts"] = part.X.copy()
    with pytest.raises(ValueError, match="non-minified model with minified"):
        cls.load(tmp_path, data)


def test_a_reference_is_a_model_or_a_folder(fitted, tmp_path):
    """scvi-tools changes what it reads, so each reading is independent of the others."""
    fitted.save(tmp_path / "model")
    reference = opened(tmp_path / "model")
    for _ in range(2):
        attributes, names, tensors, _ = _get_loaded_data(reference)
        assert attributes.pop("registry_")["field_registries"].pop("batch")
        assert attributes.pop("init_params_")["non_kwargs"].pop("n_latent") == 3
        tensors.clear()
        assert len(names)
    mapped = type(fitted).load_query_data(fitted.adata.copy(), tmp_path / "model")
    for name, tensor in fitted.module.state_dict().items():
        assert torch.equal(tensor.nan_to_num(), mapped.module.state_dict()[name].nan_to_num())
    assert opened(fitted) is fitted


# -- the folder -------------------------------------------------------------------------------


def test_a_folder_is_overwritten_on_request_only(fitted, tmp_path):
    folder = tmp_path / "a" / "model"
    fitted.save(folder)
    with pytest.raises(ValueError, match=r"already exists.*overwrite=True"):
        fitted.save(folder)
    (folder / "notes.txt").write_text("mine")
    fitted.save(folder, overwrite=True, prefix="second_")
    check_same(fitted, type(fitted).load(folder, fitted.adata.copy(), prefix="second_"))
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "second_model.json").exists()
    registry = type(fitted).load_registry(str(folder), "second_")
    assert registry["model_name"] == type(fitted).__name__
    type(fitted).view_setup_args(folder, "second_")


def test_an_older_object_is_not_loaded(fitted, tmp_path):
    fitted.save(tmp_path, overwrite=True, save_anndata=True)
    fitted.save(tmp_path, overwrite=True)
    with pytest.warns(UserWarning, match=r"was not saved together.*adata=False"):
        assert type(fitted).load(tmp_path).adata is None
    for path in tmp_path.glob("?data.*"):
        path.unlink()
    with pytest.warns(UserWarning, match="contains no saved anndata"):
        assert type(fitted).load(tmp_path).adata is None


def test_a_value_that_cannot_be_saved_changes_nothing(tmp_path):
    model = BetaVI(simulated("BetaVI"), **SMALL, var_activation=lambda x: torch.exp(x))
    with pytest.raises(TypeError, match=r"`model.init_params_.*'var_activation'\]` is function"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_object_that_cannot_be_written_leaves_no_folder(tmp_path):
    model = BetaVI(simulated("BetaVI"), **SMALL)
    model.adata.uns["function"] = print
    with pytest.raises(Exception, match="function"):
        model.save(tmp_path / "model", save_anndata=True)
    assert not (tmp_path / "model").exists()
    model.save(tmp_path / "model")


def test_options_of_torch_are_ignored_with_a_warning(tmp_path):
    model = BetaVI(simulated("BetaVI"), **SMALL)
    with pytest.warns(UserWarning, match="`save_kwargs`.*ignored"):
        model.save(tmp_path / "model", save_kwargs={"pickle_protocol": 2})


@pytest.mark.filterwarnings("ignore")
def test_a_backed_object_stays_at_its_file(tmp_path):
    simulated("BetaVI").write_h5ad(tmp_path / "own.h5ad")
    backed = anndata.read_h5ad(tmp_path / "own.h5ad", backed="r")
    BetaVI.setup_anndata(backed, batch_key="batch")
    model = BetaVI(backed, **SMALL)
    model.save(tmp_path / "model", save_anndata=True, compression="gzip")
    assert str(backed.filename) == str(tmp_path / "own.h5ad")
    check_same(model, BetaVI.load(tmp_path / "model"))


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_networks_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no networks yet.*train\(datamodule"):
        BetaVI().save(tmp_path / "model")


class Module(DataSplitter):
    """A datamodule with a registry, as scvi-tools' own."""

    def __init__(self, data):
        manager = BetaVI._get_most_recent_anndata_manager(data)
        super().__init__(manager)
        fields = dict(manager.registry["field_registries"])
        for name in ("extra_categorical_covs", "extra_continuous_covs"):
            empty = {"data_registry": {}, "state_registry": {}, "summary_stats": {f"n_{name}": 0}}
            fields.setdefault(name, empty)
        self.registry = manager.registry | {
            "setup_method_name": "setup_datamodule", "field_registries": fields,
        }  # fmt: skip
        self.n_vars, self.n_batch, self.n_labels = data.n_vars, 2, 1
        self.n_samples, self.batch_labels, self.label_keys = 60, ["a", "b"], None


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_a_datamodule(tmp_path):
    data = simulated("BetaVI")
    datamodule = Module(data)
    model = BetaVI(registry=datamodule.registry, **SMALL)
    model.train(datamodule=datamodule, **BRIEF)
    with pytest.raises(ValueError, match=r"save\(folder, datamodule=\.\.\.\)"):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model", datamodule=datamodule, save_anndata=True)
    loaded = BetaVI.load(tmp_path / "model", adata=False, datamodule=datamodule)
    assert files.digest(separate(loaded.module.state_dict())) == files.digest(
        separate(model.module.state_dict())
    )
    loaded.save(tmp_path / "model", datamodule=datamodule, overwrite=True)


def labelled(model, label):
    """Give the weights and the object of a model the same label."""
    model.adata.uns["label"] = label
    with torch.no_grad():
        next(iter(model.module.parameters())).fill_(label)


def label_of(folder):
    model = BetaVI.load(folder)
    found = next(iter(model.module.parameters())).unique().tolist()
    assert found == [model.adata.uns["label"]]
    return found[0]


def test_a_killed_save_leaves_a_whole_model(tmp_path):
    model = BetaVI(simulated("BetaVI"), **SMALL)
    folder, seen = tmp_path / "model", set()

    def write():
        model.save(folder, overwrite=True, save_anndata=True)

    labelled(model, 1.0)
    write()
    last = number_of_moments(tmp_path, write)
    for moment in (last // 2, last - 60, last - 30, last - 8):
        labelled(model, 1.0)
        write()
        labelled(model, 2.0)
        assert killed_at(moment, tmp_path, write)
        seen.add(label_of(folder))
    assert seen == {1.0, 2.0}
    write()
    assert len(list(folder.iterdir())) == 4


def test_a_save_between_two_reads(fitted, tmp_path, monkeypatch):
    """A reader finds all old or all new files, also while another process saves."""
    fitted.save(tmp_path / "model")
    other = fitted.sibling()
    working, calls = files._read_tensors, []

    def slow(path):
        calls.append(path)
        if len(calls) == 1:
            other.save(tmp_path / "model", overwrite=True)
        return working(path)

    monkeypatch.setattr(files, "_read_tensors", slow)
    check_same(other, type(fitted).load(tmp_path / "model", fitted.adata.copy()))
    assert len(calls) > 1


def test_a_save_between_the_weights_and_the_object(tmp_path, monkeypatch):
    """The object has no checksum, so the reader looks whether its file has changed."""
    model, folder, calls = BetaVI(simulated("BetaVI"), **SMALL), tmp_path / "model", []
    labelled(model, 1.0)
    model.save(folder, save_anndata=True)
    working = anndata.read_h5ad

    def slow(path):
        calls.append(path)
        if len(calls) < limit:
            labelled(model, 1.0 + len(calls))
            model.save(folder, save_anndata=True, overwrite=True)
        return working(path)

    monkeypatch.setattr(anndata, "read_h5ad", slow)
    limit = 3
    assert label_of(folder) == 3.0
    assert len(calls) == 3
    limit = 100
    with pytest.raises(ValueError, match=r"changed during each of 5 reads.*no other process"):
        BetaVI.load(folder)


@pytest.mark.parametrize("name", ["save", "load", "load_registry", "view_setup_args"])
@pytest.mark.parametrize("cls", [BetaVI, JointVI])
def test_arguments_are_those_of_scvi(cls, name):
    ours, theirs = (inspect.signature(getattr(each, name)).parameters for each in (cls, SCVI))
    shared = list(ours.values())[: len(theirs)]
    found = [(word.name, word.default) for word in shared if word.name != "model"]
    theirs = [word for word in theirs.values() if word.name != "self"]
    if name == "save":
        assert list(ours.values())[-1].kind is theirs[-1].kind is inspect.Parameter.VAR_KEYWORD
        found, theirs = found[:-1], theirs[:-1]
    assert found == [(word.name, word.default) for word in theirs]
    assert set(ours) - {word.name for word in theirs} <= {
        "model",
        "trust_pickle",
        "anndata_write_kwargs",
    }


# -- damage -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    BetaVI(simulated("BetaVI"), **SMALL).save(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


ALONE = {"model.pt": ("model.json", "model.safetensors")}


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "model.pt"])
def test_a_flipped_byte_is_found(folder, name):
    """Every byte matters, except for padding and for the pickle inside ``model.pt``."""
    for other in ALONE.get(name, ()):
        (folder / other).unlink()
    path = folder / name
    content, expected = path.read_bytes(), saved_weights(folder)
    for position in np.random.default_rng(0).integers(len(content), size=60):
        path.write_bytes(flipped(content, position))
        if name == "model.pt":
            with suppress(ValueError):
                assert saved_weights(folder) == expected, position
            continue
        with pytest.raises(ValueError, match=r"model\.(json|safetensors)"):
            saved_weights(folder)


def flipped(content, position):
    changed = bytearray(content)
    changed[position] ^= 1 << int(position) % 8
    return bytes(changed)


def saved_weights(folder):
    return files.digest(read(folder).tensors)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "model.pt"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_found(folder, name, share):
    for other in ALONE.get(name, ()):
        (folder / other).unlink()
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"{name}.*(damaged|is a pickle)"):
        BetaVI.load(folder, adata=False)


def changed_json(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_another_version_of_the_format(folder):
    changed_json(folder, schema=2)
    with pytest.raises(ValueError, match=r"model\.json has version 2.*reads version 1.*Install"):
        BetaVI.load(folder, adata=False)


@pytest.mark.parametrize("changes", [{"format": "other"}, {"model": []}, {"sha256": "0"}])
def test_another_json(folder, changes):
    changed_json(folder, **changes)
    with pytest.raises(ValueError, match=r"model\.json is damaged"):
        BetaVI.load(folder, adata=False)


@pytest.mark.parametrize("text", ['{"a": 1}', "[]", '"text"', "null", '{"format": "other"}'])
def test_a_json_of_another_program(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(ValueError, match=r"model\.json is damaged, or another program.*`prefix`"):
        BetaVI.load(folder, adata=False)


def forge(folder, change):
    """Change a model, with right checksums."""
    saved = read(folder)
    change(saved)
    for name, write in writers_of(saved).items():
        if name != "model.pt":
            write(folder / name)


FORGERIES = {
    "no arguments": lambda saved: saved.attributes.pop("init_params_"),
    "list of arguments": lambda saved: saved.attributes.update(init_params_=[]),
    "empty arguments": lambda saved: saved.attributes.update(init_params_={}),
    "other argument": lambda saved: argument(saved, "other", 1),
    "argument twice": lambda saved: argument(saved, "adata", 1),
    "empty registry": lambda saved: saved.attributes.update(registry_={"model_name": "BetaVI"}),
    "no fields": lambda saved: saved.attributes["registry_"].pop("field_registries"),
    "no field": lambda saved: saved.attributes["registry_"].update(field_registries={}),
    "list of setup arguments": lambda saved: saved.attributes["registry_"].update(setup_args=[]),
    "setup argument twice": lambda saved: saved.attributes["registry_"]["setup_args"].update(
        source_registry={}
    ),
    "more weights": lambda saved: saved.tensors.update(other=torch.ones(1)),
    "fewer weights": lambda saved: saved.tensors.pop(
        next(name for name in saved.tensors if name.endswith("weight"))
    ),
}


def argument(saved, name, value):
    saved.attributes["init_params_"]["non_kwargs"][name] = value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("has_object", [True, False])
@pytest.mark.parametrize("name", FORGERIES)
def test_forged_settings(folder, name, has_object):
    forge(folder, FORGERIES[name])
    data = simulated("BetaVI") if has_object else False
    if name == "setup argument twice" and not has_object:
        assert BetaVI.load(folder, data).adata is None
        return
    with pytest.raises(ValueError, match=r"(?s)model\.json is damaged.*save"):
        BetaVI.load(folder, data)


def test_deep_json(folder):
    (folder / "model.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"model\.json is damaged"):
        BetaVI.load(folder, adata=False)


def test_weights_of_another_model(folder, tmp_path):
    scvi.settings.seed = 1
    BetaVI(simulated("BetaVI"), **SMALL).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged.*checksum"):
        BetaVI.load(folder, adata=False)


def test_missing_files(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        BetaVI.load(folder, adata=False)
    with pytest.raises(ValueError, match=r"Failed to load model file.*save"):
        BetaVI.load(tmp_path / "nowhere", adata=False)


def test_another_class(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    other = JointVI if isinstance(fitted, BetaVI) else BetaVI
    with pytest.raises(ValueError, match=f"different class.*{type(fitted).__name__}.load"):
        other.load(tmp_path / "model", adata=False)
    derived = type("Derived", (type(fitted),), {})
    with pytest.raises(ValueError, match="different class"):
        derived.load(tmp_path / "model", adata=False)
    forge(tmp_path / "model", lambda x: x.attributes["registry_"].update(model_name="Derived"))
    with pytest.raises(ValueError, match="class 'Derived', which betavi cannot load"):
        type(fitted).load(tmp_path / "model", adata=False)
    allowed = ["Derived"]
    type(fitted).load(tmp_path / "model", adata=False, allowed_classes_names_list=allowed)
    fitted.save(tmp_path / "model", overwrite=True)
    allowed = [type(fitted).__name__]
    derived.load(tmp_path / "model", adata=False, allowed_classes_names_list=allowed)


def test_unknown_attributes_are_refused(folder):
    saved = read(folder)
    saved.attributes["_validate_anndata"] = None
    for name, write in writers_of(saved).items():
        write(folder / name)
    with pytest.raises(ValueError, match="unknown attributes"):
        BetaVI.load(folder, adata=False)


# -- copies for other programs, and folders of older versions ------------------------------------


def test_scvi_tools_reads_the_copy(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    found = torch.load(tmp_path / "model" / "model.pt", weights_only=True)
    state = fitted.module.state_dict()
    assert found["model_state_dict"].keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found["model_state_dict"][name].nan_to_num(), tensor.nan_to_num())
    registry = found["attr_dict"]["registry_"]
    assert registry["scvi_version"] == scvi.__version__
    assert registry["model_name"] == type(fitted).__name__


def test_the_copy_alone_is_a_whole_model(fitted, tmp_path):
    """A hub of scvi-tools downloads no other file, and ``backup_url`` is the address of one."""
    folder, copy = tmp_path / "model", tmp_path / "copy"
    fitted.save(folder)
    copy.mkdir()
    shutil.copy(folder / "model.pt", copy)
    check_same(fitted, type(fitted).load(copy, fitted.adata.copy()))
    with served(folder) as address:
        url = f"{address}/model.pt"
        fetched = type(fitted).load(tmp_path / "fetched", fitted.adata.copy(), backup_url=url)
    check_same(fitted, fetched)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def served(folder):
    """Serve a folder to this process, and yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def save_as_before(model, folder):
    """Save a model in the format of betavi 0.1, which is that of scvi-tools."""
    SCVI.save(model, folder, save_anndata=True)


@pytest.mark.filterwarnings("ignore")
def test_an_old_folder(fitted, tmp_path):
    cls, old, new = type(fitted), tmp_path / "old", tmp_path / "new"
    save_as_before(fitted, old)
    with pytest.raises(ValueError, match="is a pickle"):
        cls.load(old)
    check_same(fitted, cls.load(old, trust_pickle=True))
    assert cls.load_registry(old, trust_pickle=True)["model_name"] == cls.__name__
    convert(str(old), str(new))
    assert {path.name for path in old.iterdir()} == {
        "model.pt",
        ("adata.h5ad" if cls is BetaVI else "mdata.h5mu"),
    }
    loaded = cls.load(new)
    check_same(fitted, loaded)
    with pytest.raises(ValueError, match="already exists"):
        convert(old, new)


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_scvi_tools_is_not_converted(tmp_path):
    data = simulated("BetaVI")
    SCVI.setup_anndata(data)
    SCVI(data, **SMALL).save(tmp_path / "old")
    with pytest.raises(ValueError, match=r"class 'SCVI'\. Only models of BetaVI and JointVI"):
        convert(tmp_path / "old", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match=r"class 'SCVI', which betavi cannot load"):
        BetaVI.load(tmp_path / "old", adata=False, trust_pickle=True)


def test_versions_are_recorded(whole):
    assert read(whole).versions["betavi"] == betavi.__version__
