"""Find a model by path or by MLflow address."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from components.tracking.logged_models import FILES, find_model
from components.tracking.registry import connect_registry, explain_failure
from components.tracking.store import MODEL_FINGERPRINT_TAG, default_uri, tracking_uri
from irra.checkpoint import model_fingerprint
from irra.layout import CONFIG, WEIGHTS
from irra.utils.errors import UserError, without_password
from irra.utils.files import replace_folder
from irra.utils.locks import locked

FINGERPRINT = re.compile("[0-9a-f]{64}")
LOGGED_MODEL, RUN = re.compile("models:/(m-[0-9a-f]+)"), re.compile("runs:/([^/]+)/.+")


def resolve_model(model: str) -> Path:
    """Return the folder of a model.

    A model at an MLflow address is downloaded once, to $XDG_CACHE_HOME/irra (default: ~/.cache/irra), and its weights
    are verified against the fingerprint in MLflow's tags.

    Args:
        model: A path, or an MLflow address such as models:/irra@champion, models:/<model id> or runs:/<run id>/model.

    Raises:
        UserError: There is no such model, or MLflow failed.
    """
    if re.match(r"(models|runs):", model):
        return _download(model)
    if not (Path(model) / CONFIG).is_file():
        raise UserError(
            f"{model}: not a model folder (it has no {CONFIG}); give one made by `train`, or an MLflow address "
            "such as models:/irra@champion"
        )
    return Path(model)


def _download(address: str) -> Path:
    store = Path(default_uri().removeprefix("sqlite:///"))
    if tracking_uri() == default_uri() and not store.exists():  # connecting would create it
        raise UserError(
            f"{address}: {store} does not exist; change to the folder that has it, or set MLFLOW_TRACKING_URI"
        )
    client = connect_registry()
    tags = explain_failure(f"looking for {address}", lambda: _find_tags(client, address))
    if MODEL_FINGERPRINT_TAG not in tags:
        raise UserError(f"{address}: not a model of this project (it has no tag {MODEL_FINGERPRINT_TAG} in MLflow)")
    fingerprint = tags[MODEL_FINGERPRINT_TAG]
    if not FINGERPRINT.fullmatch(fingerprint):  # it becomes the name of a folder, which is written and deleted
        raise UserError(
            f"{address}: MLflow's tag {MODEL_FINGERPRINT_TAG} of it is no fingerprint: {fingerprint[:80]!r}"
        )
    folder = _cache() / fingerprint
    if not _holds(folder, fingerprint):
        with locked(folder, wait=True):
            if not _holds(folder, fingerprint):
                explain_failure(f"downloading {address}", lambda: _fetch(client, address, fingerprint, folder))
    return folder


def _holds(folder: Path, fingerprint: str) -> bool:
    """Whether the cache has this model, undamaged."""
    try:
        return model_fingerprint(folder) == fingerprint
    except UserError:
        return False


def _find_tags(client: Any, address: str) -> dict[str, str]:
    """Return the tags of the version, logged model or run at `address`.

    Raises:
        UserError: There is none.
    """
    from mlflow.exceptions import MlflowException

    try:
        if match := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", address):
            return dict(client.get_model_version_by_alias(*match.groups()).tags)
        if match := re.fullmatch(r"models:/([^/@]+)/(\d+)", address):
            return dict(client.get_model_version(*match.groups()).tags)
        if match := LOGGED_MODEL.fullmatch(address):
            return dict(client.get_logged_model(match[1]).tags)
        if match := RUN.fullmatch(address):
            return dict(client.get_run(match[1]).data.tags)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"{address}: nothing by this name at {without_password(tracking_uri())}") from None
    raise UserError(
        f"{address}: expected models:/<name>@<alias>, models:/<name>/<version>, models:/<model id> or "
        "runs:/<run id>/model"
    )


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irra"


def _fetch(client: Any, address: str, fingerprint: str, folder: Path) -> None:
    """Download a model folder to `folder`, which appears only when complete.

    Raises:
        UserError: The artifacts are not a model folder, or its weights do not have the `fingerprint`.
    """
    import mlflow

    source = _locate(client, address, fingerprint)
    with tempfile.TemporaryDirectory() as temporary, replace_folder(folder) as target:
        downloaded = Path(mlflow.artifacts.download_artifacts(source, dst_path=temporary))
        for name in (CONFIG, WEIGHTS):
            if not (downloaded / name).is_file():
                raise UserError(f"{address}: not a model folder of this project (it has no {name})")
            shutil.move(downloaded / name, target / name)
        if model_fingerprint(target) != fingerprint:
            raise UserError(f"{address}: its weights are not those that MLflow's tag names ({fingerprint[:12]})")


def _locate(client: Any, address: str, fingerprint: str) -> str:
    """Where the model folder is among the artifacts of a logged model, a version or a run.

    Runs of earlier versions of this project have it among their own artifacts, where `address` says.
    """
    import mlflow

    if match := LOGGED_MODEL.fullmatch(address):
        return f"{client.get_logged_model(match[1]).artifact_location}/{FILES}"
    if match := RUN.fullmatch(address):
        logged = find_model(client, client.get_run(match[1]), fingerprint)
        return f"{logged.artifact_location}/{FILES}" if logged else address
    artifacts = mlflow.models.get_model_info(address).flavors["python_function"]["artifacts"]
    return f"{address}/{artifacts['model']['path']}"
