"""Which MLflow store and run a stage logs to, and the tags that say where a run comes from."""

import os
import subprocess
from typing import TYPE_CHECKING, Any

from components.layout import project
from components.tracking.database import check_complete, database_of, make_database
from components.tracking.mlflow_quirks import prepare_mlflow
from components.tracking.waiting import TimedClient, limit, within
from irra.utils.errors import UserError, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MODEL_FINGERPRINT_TAG = "irra.model_fingerprint"
DATA_FINGERPRINT_TAG = "irra.data_fingerprint"
DATASET_TAG = "irra.dataset"
TAGS_FROM_ENVIRONMENT = {
    "dvc.exp_name": "DVC_EXP_NAME",
    "dvc.exp_baseline_rev": "DVC_EXP_BASELINE_REV",
    "dvc.stage": "DVC_STAGE",
    "image": "IRRA_IMAGE",
    "mlflow.source.git.commit": "GIT_COMMIT",  # set in images, which have no git
    "kfp.run_id": "KFP_RUN_ID",
}


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the address of the project's SQLite store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri()


def default_uri() -> str:
    """Return the address of the project's own SQLite store."""
    return f"sqlite:///{project() / 'mlflow.db'}"


def find_run(client: "MlflowClient", uri: str, run_id: str | None, model_fingerprint: str | None) -> "Run | None":
    """Find the run in MLFLOW_RUN_ID, or else `run_id`, or else the latest run tagged with `model_fingerprint`.

    Raises:
        UserError: The run in MLFLOW_RUN_ID does not exist, or the experiment is deleted.
    """
    return _attached_run(client) or existing_run(client, run_id) or _run_of_model(client, uri, model_fingerprint)


def connect(uri: str) -> Any:
    """Return an MlflowClient of the store at `uri`, whose requests have a time limit.

    An SQLite database is made if it does not exist.

    Raises:
        UserError: MLflow does not support this kind of store, or its database is not complete.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    database = database_of(uri)
    if database:
        make_database(database)
    try:
        return TimedClient(within(limit(uri), lambda: MlflowClient(tracking_uri=uri)), uri)
    except (MlflowException, SQLAlchemyError) as error:
        if database:
            check_complete(database)
        if getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE":
            raise
        raise UserError(
            f"MLFLOW_TRACKING_URI: {without_password(uri)!r} is not a store that MLflow can use; "
            "give a server (http://host:5000) or a database (sqlite:////folder/mlflow.db)"
        ) from error


def _attached_run(client: "MlflowClient") -> "Run | None":
    """Return the run in MLFLOW_RUN_ID, if that is set.

    Raises:
        UserError: There is no such run.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    run = existing_run(client, run_id)
    if run_id and run is None:
        raise UserError(f"MLFLOW_RUN_ID: no run {run_id!r}, or a deleted one, at {without_password(tracking_uri())}")
    return run


def existing_run(client: "MlflowClient", run_id: str | None) -> "Run | None":
    """Return the run `run_id`, or None if it is deleted or not in this store."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
    return None if run.info.lifecycle_stage == "deleted" else run


def _run_of_model(client: "MlflowClient", uri: str, model_fingerprint: str | None) -> "Run | None":
    if model_fingerprint is None:
        return None
    found = client.search_runs(
        [experiment_id(client, uri)],
        f"tags.`{MODEL_FINGERPRINT_TAG}` = '{model_fingerprint}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return found[0] if found else None


def experiment_id(client: "MlflowClient", uri: str) -> str:
    """Return MLFLOW_EXPERIMENT_ID, or the id of the experiment MLFLOW_EXPERIMENT_NAME (default: `irra`).

    An experiment that does not exist is created.

    Raises:
        UserError: The experiment is deleted.
    """
    from mlflow.exceptions import MlflowException

    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "irra"
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = (project() / "mlartifacts").as_uri() if uri == default_uri() else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise
        experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage == "deleted":
        raise UserError(f"MLFLOW_EXPERIMENT_NAME: experiment {name!r} is deleted; restore it or give another name")
    return str(experiment.experiment_id)


def origin_tags(stage: str) -> dict[str, str]:
    """Return tags that say where a run comes from: code, DVC experiment, image, Kubeflow run."""
    tags = {tag: os.environ[name] for tag, name in TAGS_FROM_ENVIRONMENT.items() if os.environ.get(name)}
    tags["mlflow.source.name"] = f"components.{stage}"
    if commit := git("rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = commit
        tags["git.dirty"] = "true" if git("status", "--porcelain", "--untracked-files=no") else "false"
    return tags


def git(*arguments: str) -> str:
    """Return the output of git, or "" without git or outside a repository."""
    command = ["git", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


if __name__ == "__main__":
    if own := database_of(tracking_uri()):
        prepare_mlflow()
        make_database(own)  # before `mlflow server` makes it in its own way
    print(tracking_uri())
