"""Models by path or by MLflow address."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from components.tracking.registry import ask, connect_registry, explained
from components.tracking.store import MODEL_FINGERPRINT_TAG, default_uri, tracking_uri
from irra.checkpoint import model_fingerprint
from irra.layout import CONFIG, WEIGHTS
from irra.utils.errors import UserError, without_password
from irra.utils.files import replace_folder
from irra.utils.locks import locked


def resolve_model(model: str) -> Path:
    """The folder of a model: a path, or an MLflow address such as models:/irra@champion or runs:/<run id>/model.

    What an address names is downloaded once, to $XDG_CACHE_HOME/irra (else ~/.cache/irra), and its weights are compared
    with the fingerprint that MLflow has of them. UserError when there is no such model, or MLflow fails.
    """
    if re.match(r"(models|runs):", model):
        return _download(model)
    if not (Path(model) / CONFIG).is_file():
        raise UserError(
            f"{model}: no model folder (it has no {CONFIG}); name one that `train` has made, or an MLflow address "
            "such as models:/irra@champion"
        )
    return Path(model)


def _download(address: str) -> Path:
    store = Path(default_uri().removeprefix("sqlite:///"))
    if tracking_uri() == default_uri() and not store.exists():  # looking must not make one
        raise UserError(f"{address}: there is no {store}; go where it is, or set MLFLOW_TRACKING_URI")
    client = connect_registry()
    tags = ask(f"looking for {address}", lambda: _find_tags(client, address))
    if MODEL_FINGERPRINT_TAG not in tags:
        raise UserError(f"{address}: no model of this project (MLflow has no tag {MODEL_FINGERPRINT_TAG} of it)")
    fingerprint = tags[MODEL_FINGERPRINT_TAG]
    folder = _cache() / fingerprint
    if not _holds(folder, fingerprint):
        with locked(folder, wait=True):
            if not _holds(folder, fingerprint):
                explained(f"downloading {address}", lambda: _fetch(address, fingerprint, folder))
    return folder


def _holds(folder: Path, fingerprint: str) -> bool:
    """Whether the cache has this model, undamaged."""
    try:
        return model_fingerprint(folder) == fingerprint
    except UserError:
        return False


def _find_tags(client: Any, address: str) -> dict[str, str]:
    """The tags of the version or run that `address` names; UserError when there is none."""
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
        raise UserError(f"{address}: nothing of this name at {without_password(tracking_uri())}") from None
    raise UserError(f"{address}: expected models:/<name>@<alias>, models:/<name>/<version> or runs:/<run id>/model")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irra"


def _fetch(address: str, fingerprint: str, folder: Path) -> None:
    """Download the model folder, which a registered model holds among its artifacts, to `folder`, or nothing."""
    import mlflow

    source = address
    if address.startswith("models:"):
        artifacts = mlflow.models.get_model_info(address).flavors["python_function"]["artifacts"]
        source = f"{address}/{artifacts['model']['path']}"
    with tempfile.TemporaryDirectory() as temporary, replace_folder(folder) as target:
        downloaded = Path(mlflow.artifacts.download_artifacts(source, dst_path=temporary))
        for name in (CONFIG, WEIGHTS):
            if not (downloaded / name).is_file():
                raise UserError(f"{address}: no model folder of this project (it has no {name})")
            shutil.move(downloaded / name, target / name)
        if model_fingerprint(target) != fingerprint:
            raise UserError(f"{address}: its weights are not those that MLflow's tag names ({fingerprint[:12]})")
