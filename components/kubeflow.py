"""What a stage needs around it to run as a task of a Kubeflow pipeline."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from components.stage import TERMINATION_LOG, explain, leave_message
from components.tracking.ablations import ID as ABLATION
from components.tracking.notes import note_run
from irra.config import ConfigSection, parse_section

RUN_ID, MODEL_FINGERPRINT = "mlflow_run_id", "model_fingerprint"  # in a model's metadata
NULL = "null"  # written like this, and as a string of its own without a use
SectionT = TypeVar("SectionT", bound=ConfigSection)


@contextmanager
def running_stage(
    *, own_run: bool = False, ablation: bool = False, termination_log: Path = TERMINATION_LOG
) -> Iterator[None]:
    """Run a stage's code in the block, and end the task with a single message if the user made a mistake.

    Args:
        own_run: Whether the stage has an MLflow run of its own. Kubeflow's MLflow plugin sets MLFLOW_RUN_ID to a
            separate run for every task; the other stages leave it aside, and log to the run that trained their model.
        ablation: Whether to give the runs of all trainings of a Kubeflow run one parent.
        termination_log: Gets that message too, if it exists.
    """
    if ablation:
        os.environ[ABLATION] = os.environ.get("KFP_RUN_ID", "")
    if not own_run:
        os.environ.pop("MLFLOW_RUN_ID", None)
    try:
        yield
    except BaseException as error:
        leave_message(error, termination_log)
        raise SystemExit(explain(error)) from None


@contextmanager
def reporting_folder() -> Iterator[Path]:
    """Yield a temporary folder for files that are only needed to write the task's report."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def section(kind: type[SectionT], values: Mapping[str, Any]) -> SectionT:
    """Read a section of params.yaml from a task's parameter, the inverse of `as_parameter`.

    Raises:
        UserError: A value is invalid.
    """
    return parse_section(kind, json.dumps(_from_kfp(values)))


def as_parameter(section: ConfigSection) -> dict[str, Any]:
    """Return a section as a parameter of a task: Kubeflow's page shows a dictionary as a tree.

    A string of JSON would be one long line there. But in a dictionary, KFP accepts no null, and all numbers become
    floats.
    """
    values: dict[str, Any] = _to_kfp(section.model_dump(mode="json"))
    return values


def _to_kfp(value: Any) -> Any:
    match value:
        case None:
            return NULL
        case dict():
            return {name: _to_kfp(item) for name, item in value.items()}
        case list():
            return [_to_kfp(item) for item in value]
    return value


def _from_kfp(value: Any) -> Any:
    match value:
        case Mapping():
            return {name: _from_kfp(item) for name, item in value.items()}
        case list():
            return [_from_kfp(item) for item in value]
        case float() if value.is_integer():
            return int(value)  # which a section takes for a float too
    return None if value == NULL else value


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Round percentages as Kubeflow's page and its comparison shall show them."""
    return {name: round(value, 2) for name, value in metrics.items()}


def noted(model: Mapping[str, Any], folder: Path) -> Path:
    """Write the note of the MLflow run that a model's metadata names, as the stages read it."""
    path = folder / "model-run.json"
    note_run(path, model.get(MODEL_FINGERPRINT, ""), model.get(RUN_ID))
    return path
