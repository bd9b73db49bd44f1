"""Logged models: what a run has trained, with its metrics, its files and the versions made from it.

A logged model is found by its run and by the fingerprint of its weights, so making it twice makes one. Its files lie
where MLflow's package of a served model has them, which `components.register` adds:

    artifacts/model       the model folder; `runs:/<run id>/model/artifacts/model` is its address
    MLmodel, code, ...    the rest of the package

As long as it lacks its files, it has the tag OWNER_TAG, which names the process that makes it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.tracking.owner import OWNER_TAG, is_gone, this_process
from components.tracking.store import DATA_FINGERPRINT_TAG, DATASET_TAG, MODEL_FINGERPRINT_TAG

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

NAME = "model"
FILES = "artifacts/model"
VERSIONS_TAG = "mlflow.modelVersions"  # MLflow's page links to the versions in it
DIGEST_CHARACTERS = 36  # MLflow's limit


@dataclass(frozen=True)
class Description:
    """A trained model and its metrics; `time` is when they were measured, in milliseconds.

    The data's fingerprint is that of the dataset the metrics were measured on.
    """

    fingerprint: str
    epoch: int
    dataset: str
    data_fingerprint: str
    metrics: Mapping[str, float]
    time: int
    params: Mapping[str, str]


def find_model(client: Any, run: "Run", fingerprint: str) -> "LoggedModel | None":
    """Find the logged model of `run` with these weights."""
    found = client.search_logged_models([run.info.experiment_id], f"tags.`{MODEL_FINGERPRINT_TAG}` = '{fingerprint}'")
    models = [model for model in found if model.source_run_id == run.info.run_id]
    return min(models, key=lambda model: model.creation_timestamp, default=None)


def create_model(client: Any, run: "Run", tags: Mapping[str, str], params: Mapping[str, str]) -> "LoggedModel":
    """Make a logged model that still lacks its files."""
    owned, run_params = {**tags, OWNER_TAG: this_process()}, {**run.data.params, **params}
    return client.create_logged_model(run.info.experiment_id, NAME, run.info.run_id, owned, run_params)


def send_model(client: Any, run_id: str, about: Description, folder: Path | None) -> bool:
    """Make the logged model of a run that `about` describes, or find it, and add the metrics to it.

    Args:
        client: MLflow's.
        run_id: The run.
        about: The model.
        folder: The model folder; None if it does not exist any more.

    Returns:
        Whether it has its files.
    """
    from mlflow.entities import Metric

    run = client.get_run(run_id)
    model = find_model(client, run, about.fingerprint)
    if model is None:
        facts = (about.fingerprint, about.data_fingerprint, about.dataset)
        tags = dict(zip((MODEL_FINGERPRINT_TAG, DATA_FINGERPRINT_TAG, DATASET_TAG), facts, strict=True))
        model = create_model(client, run, tags, about.params)
    is_complete = model.status == "READY"
    if not is_complete and folder:
        claim(client, model)
        client.log_model_artifacts(model.model_id, str(folder), FILES)
    if not is_complete:
        finish_model(client, model, "READY" if folder else "FAILED")
    add_output(client, run, model.model_id, about.epoch)
    data = {"dataset_name": about.dataset, "dataset_digest": about.data_fingerprint[:DIGEST_CHARACTERS]}
    measured = [
        Metric(name, value, about.time, about.epoch, model_id=model.model_id, run_id=run_id, **data)
        for name, value in about.metrics.items()
    ]
    client.log_batch(run_id, measured)
    return is_complete or folder is not None


def claim(client: Any, model: "LoggedModel") -> None:
    """Note that this process goes on with a model that another may have begun."""
    if model.status != "READY" and model.tags.get(OWNER_TAG) != this_process():
        client.set_logged_model_tags(model.model_id, {OWNER_TAG: this_process()})


def finish_model(client: Any, model: "LoggedModel", status: str) -> None:
    """Say that a model has got its files, or will not get them."""
    if OWNER_TAG in client.finalize_logged_model(model.model_id, status).tags:
        client.delete_logged_model_tag(model.model_id, OWNER_TAG)


def add_output(client: Any, run: "Run", model_id: str, step: int) -> None:
    """List a model among the outputs of its run; MLflow fails if it is there already."""
    from mlflow.entities import LoggedModelOutput

    if model_id not in [output.model_id for output in run.outputs.model_outputs]:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, step)])


def remove_orphans(client: Any, experiment: str) -> None:
    """Delete the models that a process was making which is certainly gone; who resumes its work makes them again."""
    for model in client.search_logged_models([experiment], f"tags.`{OWNER_TAG}` != ''"):
        if model.status == "PENDING" and is_gone(model.tags[OWNER_TAG]):
            client.delete_logged_model(model.model_id)


def link_version(client: Any, model_id: str, name: str, version: str) -> None:
    """Link a logged model to a version made from it, as a server does; a client of a database has to.

    https://github.com/mlflow/mlflow/pull/13701
    """
    known = versions_of(client, model_id)
    if not any(is_version(other, name, version) for other in known):
        linked = [*known, {"name": name, "version": version}]
        client.set_logged_model_tags(model_id, {VERSIONS_TAG: json.dumps(linked)})


def unlink_version(client: Any, model_id: str, name: str, version: str) -> None:
    """Undo `link_version`, which MLflow does not do by itself when a version is deleted."""
    known = versions_of(client, model_id)
    left = [other for other in known if not is_version(other, name, version)]
    if left != known:
        client.set_logged_model_tags(model_id, {VERSIONS_TAG: json.dumps(left)})


def is_version(link: Mapping[str, Any], name: str, version: str) -> bool:
    """Whether a link is to this version; a server writes its number as a number."""
    return (link["name"], str(link["version"])) == (name, str(version))


def versions_of(client: Any, model_id: str) -> list[dict[str, Any]]:
    """The versions that a logged model is linked to."""
    known: list[dict[str, Any]] = json.loads(client.get_logged_model(model_id).tags.get(VERSIONS_TAG, "[]"))
    return known
