"""Models by path and by MLflow address, from a real store."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.models import Model

from components import register
from components.tracking.models import resolve_model
from components.tracking.run import open_run
from components.tracking.store import MODEL_FINGERPRINT_TAG, tracking_uri
from irra.checkpoint import load_model, model_fingerprint
from irra.utils.errors import UserError
from tests.components.test_registry import irra, model_of, project  # noqa: F401
from tests.components.test_registry import log_model as train
from tests.components.test_tracking import NOWHERE, clean_environment  # noqa: F401

pytestmark = pytest.mark.xdist_group("mlflow")


@pytest.fixture
def registered(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> register.Inputs:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    inputs: register.Inputs = request.getfixturevalue("irra")
    return inputs


def log_model(folder: Path, fingerprint: str) -> str:
    """Log a model folder as training in earlier versions of this project did, and return its address."""
    with open_run("train") as tracker:
        tracker.log_folder(folder, "model")
        tracker.set_tags({MODEL_FINGERPRINT_TAG: fingerprint})
    return f"runs:/{tracker.run_id}/model"


def test_a_folder_is_itself(registered: register.Inputs) -> None:
    assert resolve_model(str(registered.model)) == registered.model


def test_looking_where_no_store_is_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"mlflow\.db does not exist"):
        resolve_model("models:/irra@champion")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["models:/irra@champion", "models:/irra/1"])
def test_a_registered_model_is_downloaded(registered: register.Inputs, address: str) -> None:
    folder = resolve_model(address)
    assert model_fingerprint(folder) == model_fingerprint(registered.model)
    assert load_model(folder).spec == load_model(registered.model).spec
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.safetensors"]


@pytest.mark.parametrize("form", ["runs:/{run}/model", "models:/{model}"])
def test_the_model_of_a_training_is_downloaded(registered: register.Inputs, form: str) -> None:
    run_id = train(registered.model, 50.0)
    folder = resolve_model(form.format(run=run_id, model=model_of(run_id).model_id))
    assert model_fingerprint(folder) == model_fingerprint(registered.model)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.safetensors"]


def test_a_version_that_an_earlier_version_of_this_project_registered_is_downloaded(
    registered: register.Inputs, tmp_path: Path
) -> None:
    package, fingerprint = tmp_path / "package", model_fingerprint(registered.model)
    shutil.copytree(registered.model, package / "artifacts" / "best")  # the name that the folder had
    flavor = {"artifacts": {"model": {"path": "artifacts/best", "uri": "/gone"}}}
    Model(flavors={"python_function": flavor}).save(package / "MLmodel")
    client = MlflowClient(tracking_uri())
    client.create_registered_model("irra-earlier")
    client.create_model_version("irra-earlier", str(package), tags={MODEL_FINGERPRINT_TAG: fingerprint})
    assert model_fingerprint(resolve_model("models:/irra-earlier/1")) == fingerprint


def test_the_model_of_a_run_is_downloaded_once(registered: register.Inputs, tmp_path: Path) -> None:
    address = log_model(registered.model, model_fingerprint(registered.model))
    folder = resolve_model(address)
    weights = (folder / "weights.safetensors").stat()
    assert resolve_model(address) == folder
    assert folder.is_relative_to(tmp_path / "cache")
    assert (folder / "weights.safetensors").stat().st_ino == weights.st_ino


def test_a_model_damaged_in_the_cache_is_downloaded_again(registered: register.Inputs) -> None:
    address = log_model(registered.model, model_fingerprint(registered.model))
    weights = resolve_model(address) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert model_fingerprint(resolve_model(address)) == model_fingerprint(registered.model)


def test_weights_that_are_not_those_of_the_tag_are_refused(registered: register.Inputs, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not those that MLflow's tag names"):
        resolve_model(log_model(registered.model, "f" * 64))
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []


@pytest.mark.parametrize("form", ["../../victim", "{}/victim", "", "F" * 64, "f" * 63])
def test_a_tag_that_is_no_fingerprint_is_no_path(registered: register.Inputs, tmp_path: Path, form: str) -> None:
    victim = tmp_path / "victim"
    for folder in (victim, tmp_path / "victim.tmp"):  # what writing a folder of that name would delete
        folder.mkdir()
    with pytest.raises(UserError, match="is no fingerprint"):
        resolve_model(log_model(registered.model, form.format(tmp_path)))
    assert (tmp_path / "victim.tmp").is_dir()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("no such folder", "not a model folder"),
        ("models:/irra@nobody", "nothing by this name"),
        ("models:/nothing@champion", "nothing by this name"),
        ("models:/irra/99", "nothing by this name"),
        ("models:/m-0123456789abcdef0123456789abcdef", "nothing by this name"),
        ("runs:/0123456789abcdef0123456789abcdef/model", "nothing by this name"),
        ("models:/irra", "expected models:/<name>@<alias>"),
        ("runs:/0123456789abcdef0123456789abcdef", "expected models:/<name>@<alias>"),
    ],
)
def test_what_is_not_there_is_the_users_mistake(registered: register.Inputs, address: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_model(address)


def test_a_run_without_a_model_is_the_users_mistake(registered: register.Inputs) -> None:
    with open_run("train") as tracker:
        pass
    with pytest.raises(UserError, match="not a model of this project"):
        resolve_model(f"runs:/{tracker.run_id}/model")
    MlflowClient(tracking_uri()).set_tag(tracker.run_id, MODEL_FINGERPRINT_TAG, "e" * 64)
    with pytest.raises(UserError, match=f"runs:/{tracker.run_id}/model"):
        resolve_model(f"runs:/{tracker.run_id}/model")


def test_a_server_that_is_down_is_the_users_mistake(
    registered: register.Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    with pytest.raises(UserError, match="Connection refused"):
        resolve_model("models:/irra@champion")
