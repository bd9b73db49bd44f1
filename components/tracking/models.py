"""Find a model by path or by MLflow address."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from components.tracking.registry import connect_registry, explain_failure
from components.tracking.store import MODEL_FINGERPRINT_TAG, default_uri, tracking_uri
from irra.checkpoint import model_fingerprint
from irra.layout import CONFIG, WEIGHTS
from irra.utils.errors import UserError, without_password
from irra.utils.files import replace_folder
from irra.utils.locks import locked

FINGERPRINT = re.compile("[0-9a-f]{64}")


def resolve_model(model: str) -> Path:
    """Return the folder of a model.

    A model at an MLflow address is downloaded once, to $XDG_CACHE_HOME/irra (default: ~/.cache/irra), and its weights
    are verified against the fingerprint in MLflow's tags.

    Args:
        model: A path, or an MLflow address such as models:/irra@champion or runs:/<run id>/model.

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
                explain_failure(f"downloading {address}", lambda: _fetch(address, fingerprint, folder))
    return folder


def _holds(folder: Path, fingerprint: str) -> bool:
    """Whether the cache has this model, undamaged."""
    try:
        return model_fingerprint(folder) == fingerprint
    except UserError:
        return False


def _find_tags(client: Any, address: str) -> dict[str, str]:
    """Return the tags of the version or run at `address`.

    Raises:
        UserError: There is none.
    """
    from mlflow.exceptions import MlflowException

    try:
        if match := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", address):
            return dict(client.get_model_version_by_alias(*match.groups()).tags)
        if match := re.fullmatch(r"models:/([^/@]+)/(\d+)", address):
            return dict(client.get_model_version(*match.groups()).tags)
        if match := re.fullmatch(r"runs:/([^/]+)/.+", address):
            return dict(client.get_run(match[1]).data.tags)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"{address}: nothing by this name at {without_password(tracking_uri())}") from None
    raise UserError(f"{address}: expected models:/<name>@<alias>, models:/<name>/<version> or runs:/<run id>/model")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irra"


def _fetch(address: str, fingerprint: str, folder: Path) -> None:
    """Download a model folder to `folder`, which appears only when complete.

    In a registered model, the model folder is one of the artifacts.

    Raises:
        UserError: The artifacts are not a model folder, or its weights do not have the `fingerprint`.
    """
    import mlflow

    source = address
    if address.startswith("models:"):
        artifacts = mlflow.models.get_model_info(address).flavors["python_function"]["artifacts"]
        source = f"{address}/{artifacts['model']['path']}"
    with tempfile.TemporaryDirectory() as temporary, replace_folder(folder) as target:
        downloaded = Path(mlflow.artifacts.download_artifacts(source, dst_path=temporary))
        for name in (CONFIG, WEIGHTS):
            if not (downloaded / name).is_file():
                raise UserError(f"{address}: not a model folder of this project (it has no {name})")
            shutil.move(downloaded / name, target / name)
        if model_fingerprint(target) != fingerprint:
            raise UserError(f"{address}: its weights are not those that MLflow's tag names ({fingerprint[:12]})")
