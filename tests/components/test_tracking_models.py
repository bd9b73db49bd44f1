"""The logged model of a training: one for each run and weights, whatever is sent twice, late or not at all."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.data.schema import TensorDatasetSchema

from components.tracking.datasets import find_source, track_dataset
from components.tracking.owner import OWNER_TAG, this_process
from components.tracking.run import open_run
from components.tracking.store import (
    DATA_FINGERPRINT_TAG,
    DATASET_TAG,
    MODEL_FINGERPRINT_TAG,
    connect,
    experiment_id,
    tracking_uri,
)
from components.tracking.sync import NOT_SENT_TAG
from components.tracking.tracker import Tracker
from irra.data.store import PreparedStore
from tests.components.test_registry import project  # noqa: F401
from tests.components.test_tracking import (  # noqa: F401
    NOWHERE,
    clean_environment,
    get_run,
    history,
    make_run,
    warnings,
)

pytestmark = pytest.mark.xdist_group("mlflow")
WEIGHTS, DATA = "a" * 64, ("toy", "d" * 64)


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for models and artifacts, and an experiment of its own in the store that tests share."""
    request.getfixturevalue("project")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    client = connect(tracking_uri())
    client.create_experiment(tmp_path.name, artifact_location=(tmp_path / "mlartifacts").as_uri())
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "weights.safetensors").write_text("w")
    return tmp_path


def log(tracker: Tracker, folder: Path, epoch: int = 3, **metrics: float) -> None:
    """Log a model as a stage does."""
    named = {name.replace("_", "/"): value for name, value in metrics.items()}
    tracker.log_model(folder / "best", WEIGHTS, epoch, DATA, named, tracker.log_metrics(named, epoch))


def logged() -> list[Any]:
    client = MlflowClient(tracking_uri())
    return list(client.search_logged_models([experiment_id(client, tracking_uri())]))


def files(model: Any) -> list[str]:
    folder = Path(unquote(model.artifact_location.removeprefix("file://")))
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def values(model: Any) -> dict[str, float]:
    return {metric.key: metric.value for metric in model.metrics or ()}


# ---- what is recorded ----


def test_the_model_of_a_training_has_its_metrics_parameters_data_and_files(folder: Path) -> None:
    with open_run("train") as tracker:
        tracker.log_params({"train": {"loss_names": "sdm+id", "seed": 1}})
        log(tracker, folder, val_R1=50.0)
    (model,) = logged()
    (metric,) = model.metrics
    assert (metric.key, metric.value, metric.step, metric.run_id) == ("val/R1", 50.0, 3, tracker.run_id)
    assert (metric.dataset_name, metric.dataset_digest) == (DATA[0], DATA[1][:36])
    assert (model.status, model.params["train.loss_names"], model.params["train.seed"]) == ("READY", "sdm+id", "1")
    ours = {name: value for name, value in model.tags.items() if name.startswith("irra.")}
    assert ours == {MODEL_FINGERPRINT_TAG: WEIGHTS, DATA_FINGERPRINT_TAG: DATA[1], DATASET_TAG: DATA[0]}
    assert files(model) == ["artifacts/model/weights.safetensors"]
    outputs = get_run(tracker.run_id).outputs.model_outputs
    assert [(output.model_id, output.step) for output in outputs] == [(model.model_id, 3)]


def test_models_are_found_by_their_metrics(folder: Path) -> None:
    for r1 in (40.0, 60.0):
        with open_run("train") as tracker:
            log(tracker, folder, final_test_R1=r1)
    found = mlflow.search_logged_models(
        experiment_ids=[get_run(tracker.run_id).info.experiment_id],
        filter_string="metrics.`final/test/R1` > 50",
        datasets=[{"dataset_name": "toy"}],
        output_format="list",
    )
    assert [model.source_run_id for model in found] == [tracker.run_id]


def test_a_metric_of_the_model_is_one_point_of_the_run_s_curve(folder: Path) -> None:
    with open_run("train") as tracker:
        log(tracker, folder, val_R1=50.0)
    assert history(tracker.run_id, "val/R1") == [(3, 50.0)]


def test_a_later_stage_adds_its_metrics_to_the_same_model(folder: Path) -> None:
    with open_run("train") as tracker:
        log(tracker, folder, val_R1=50.0)
    with open_run("evaluate", run_id=tracker.run_id) as tracker:
        log(tracker, folder, final_R1=49.0)
        log(tracker, folder, final_R1=49.0)
    (model,) = logged()
    assert values(model) == {"val/R1": 50.0, "final/R1": 49.0}
    assert len(get_run(tracker.run_id).outputs.model_outputs) == 1


def test_two_trainings_with_equal_weights_have_a_model_each(folder: Path) -> None:
    runs = []
    for r1 in (50.0, 60.0):
        with open_run("train") as tracker:
            log(tracker, folder, val_R1=r1)
            runs.append(tracker.run_id)
    assert {model.source_run_id: values(model)["val/R1"] for model in logged()} == dict(
        zip(runs, (50.0, 60.0), strict=True)
    )


# ---- what goes wrong ----


def broken_store(folder: Path) -> Path:
    path = folder / "mlartifacts"
    path.write_text("a file where a folder should be")
    return path


def test_a_model_that_cannot_be_stored_stops_nothing_and_is_sent_later(
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    obstacle = broken_store(folder)
    with open_run("train") as tracker:
        log(tracker, folder, val_R1=50.0)
        tracker.log_metrics({"loss": 1.0}, 0)
    (line,) = warnings(capfd)
    assert "files are sent later" in line
    assert [model.status for model in logged()] == ["PENDING"]
    obstacle.unlink()
    make_run()
    (model,) = logged()
    assert (model.status, values(model), len(files(model))) == ("READY", {"val/R1": 50.0}, 1)
    assert (get_run(tracker.run_id).info.status, history(tracker.run_id, "val/R1")) == ("FINISHED", [(3, 50.0)])


def test_a_model_whose_files_are_gone_keeps_its_metrics_and_is_no_ready_one(folder: Path) -> None:
    obstacle = broken_store(folder)
    with open_run("train") as tracker:
        log(tracker, folder, val_R1=50.0)
    obstacle.unlink()
    (folder / "best" / "weights.safetensors").write_text("of another training")
    make_run()
    (model,) = logged()
    assert (model.status, values(model)) == ("FAILED", {"val/R1": 50.0})
    assert "best: no longer what was to be uploaded" in get_run(tracker.run_id).data.tags[NOT_SENT_TAG]


def test_a_model_in_store_needs_its_folder_no_more(folder: Path) -> None:
    with open_run("train") as tracker:
        log(tracker, folder, val_R1=50.0)
    with open_run("evaluate", run_id=tracker.run_id) as tracker:
        tracker._files_failed = True  # as after another file
        log(tracker, folder, final_R1=49.0)
        (folder / "best" / "weights.safetensors").unlink()
    (model,) = logged()
    assert (model.status, values(model)) == ("READY", {"val/R1": 50.0, "final/R1": 49.0})
    assert get_run(tracker.run_id).info.status == "FINISHED"


def test_without_a_server_a_model_is_kept_and_costs_no_more_than_the_one_warning(
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with open_run("train") as tracker:
        log(tracker, folder, val_R1=50.0)
    (kept,) = (folder / "mlflow-spool").rglob("*.jsonl")
    assert len(warnings(capfd)) == 1
    assert json.loads(kept.read_text().splitlines()[2].partition("\t")[0])["model"][1]["metrics"] == {"val/R1": 50.0}


@pytest.mark.parametrize("is_gone", [True, False])
def test_the_model_that_a_killed_process_was_making_is_removed(folder: Path, is_gone: bool) -> None:
    run = get_run(make_run())
    code = "from components.tracking.owner import this_process\nprint(this_process())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    owner = ended.stdout.strip() if is_gone else this_process()
    MlflowClient(tracking_uri()).create_logged_model(run.info.experiment_id, "model", tags={OWNER_TAG: owner})
    make_run()
    assert len(logged()) == (0 if is_gone else 1)


def test_a_resumed_training_completes_the_model_that_it_had_begun(folder: Path) -> None:
    obstacle = broken_store(folder)
    with open_run("train") as tracker:
        log(tracker, folder, val_R1=50.0)
        obstacle.unlink()
        tracker._files_failed = False
        log(tracker, folder, val_R1=50.0)
    (model,) = logged()
    assert (model.status, OWNER_TAG in model.tags) == ("READY", False)


# ---- the dataset ----


def test_mlflow_finds_the_source_and_the_schema_of_a_dataset(folder: Path, store: PreparedStore) -> None:
    with open_run("train") as tracker:
        tracker.log_dataset(track_dataset(store), "train")
    (entry,) = get_run(tracker.run_id).inputs.dataset_inputs
    assert mlflow.data.get_source(entry).load() == str(store.root)
    schema = TensorDatasetSchema.from_dict(json.loads(entry.dataset.schema))
    assert [(column.name, column.shape) for column in schema.features.inputs] == [
        ("images", (-1, 64, 32, 3)),
        ("captions", (-1,)),
    ]
    assert json.loads(entry.dataset.profile)["test"]["identities"] == 4
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "train")]


def test_an_artifact_of_kubeflow_is_in_s3() -> None:
    assert find_source(Path("/minio/mlpipeline/v2/prepared")) == ("s3", "s3://mlpipeline/v2/prepared")


def test_the_data_of_a_dvc_experiment_are_those_of_its_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = tmp_path / ".dvc" / "tmp" / "exps" / "x"
    workspace.mkdir(parents=True)
    monkeypatch.chdir(workspace)
    assert find_source(Path("data/prepared")) == ("local", str(tmp_path / "data/prepared"))
