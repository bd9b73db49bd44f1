"""The Kubeflow pipeline run by kfp's SubprocessRunner in a copy of the project, compared with `dvc repro`."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from irra.checkpoint import model_fingerprint
from tests.irra.test_splits import annotate
from tests.projects import Project

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def first_run(project: Project) -> Path:
    return run_local(project)


def run_local(project: Project, *options: str) -> Path:
    """Run the pipeline and return the folder of the run."""
    shown = project.run("python", "-m", "pipeline", "run-local", *options)
    return project.folder / shown.rpartition("outputs: ")[2].splitlines()[0]


SCHEDULED = """
import sys
from pathlib import Path
from irra.config import change, load_params
from pipeline.graph import NO_IMAGE, arguments, scheduled_pipeline
from pipeline.local import run_in_subprocesses

params = change(load_params(Path("params.yaml")), sys.argv[1:])
values = {**arguments(params), "train_checkpoints": ""}
print("outputs:", run_in_subprocesses(scheduled_pipeline(params, NO_IMAGE), Path("build/runs"), values))
"""


def run_scheduled(project: Project, *changes: str) -> Path:
    """Run the pipeline of a schedule, which only a cluster repeats, and return the folder of the run."""
    shown = project.run("python", "-c", SCHEDULED, *changes)
    return project.folder / shown.rpartition("outputs: ")[2].splitlines()[0]


def client(project: Project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")


def runs_of_kubeflow(project: Project) -> list[Any]:
    experiment = client(project).get_experiment_by_name("irra")
    runs = client(project).search_runs([experiment.experiment_id])
    return [run for run in runs if "kfp.run_id" in run.data.tags]


def pictures(run: Any) -> dict[str, bytes]:
    """Return the pictures among a run's artifacts."""
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_subprocesses_give_the_same_weights_and_metrics_as_dvc(project: Project, first_run: Path) -> None:
    assert model_fingerprint(first_run / "train" / "model") == model_fingerprint(project.folder / "model")
    assert metrics(first_run / "evaluate" / "results") == metrics(project.folder / "reports" / "evaluate")


def test_the_tasks_of_a_model_share_one_mlflow_run(project: Project, first_run: Path) -> None:
    (run,) = runs_of_kubeflow(project)
    assert {"loss/total", "val/t2i/R1", "final/test/t2i/R1"} <= set(run.data.metrics)
    assert run.data.tags["irra.model_fingerprint"] == model_fingerprint(first_run / "train" / "model")


def test_the_mlflow_run_has_the_pictures_of_dvc(project: Project, first_run: Path) -> None:
    (run,) = runs_of_kubeflow(project)
    others = client(project).search_runs([run.info.experiment_id])
    (of_dvc,) = [other for other in others if other.info.run_id != run.info.run_id]
    assert len(pictures(run)) == 7
    assert pictures(run) == pictures(of_dvc)


def test_a_model_that_passes_the_gate_becomes_the_champion(project: Project, first_run: Path) -> None:
    assert (first_run / "register").is_dir()
    champion = client(project).get_model_version_by_alias("irra", "champion")
    assert champion.run_id == runs_of_kubeflow(project)[0].info.run_id


def test_reports_are_self_contained_pages(first_run: Path) -> None:
    shown = {
        "prepare/dataset_report": '<div class="people">',
        "train/training_report": 'alt="losses"',
        "evaluate/retrieval_report": "Best queries",
    }
    for report, part in shown.items():
        page = (first_run / report).read_text()
        assert part in page
        assert 'src="data:image/' in page
        assert "http" not in page


def test_artifacts_carry_what_the_user_interface_shows(first_run: Path) -> None:
    def metadata(task: str, artifact: str) -> dict[str, Any]:
        output = json.loads((first_run / task / "executor_output.json").read_text())
        return output["artifacts"][artifact]["artifacts"][0]["metadata"]

    assert metadata("prepare", "prepared")["splits"]["train"]["identities"] == 12
    r1 = metrics(first_run / "evaluate/results")["test"]["R1"]
    assert metadata("evaluate", "retrieval_metrics")["test/t2i/R1"] == round(r1, 2)
    assert metadata("tokenize", "tokens")["data_fingerprint"] == metadata("prepare", "prepared")["fingerprint"]
    for task, artifact, name in (("evaluate", "results", "fingerprint"), ("index", "gallery", "model_fingerprint")):
        assert metadata(task, artifact)[name] == model_fingerprint(first_run / "train" / "model")
    assert metadata("train", "model")["model_fingerprint"] == model_fingerprint(first_run / "train" / "model")


def test_a_model_that_fails_the_gate_is_not_registered(project: Project, first_run: Path) -> None:
    second = run_local(project, "--set", "train.seed=1", "--set", "registry.threshold=100")
    assert not (second / "register").exists()
    assert "below registry.threshold" in (second / "gate" / "decision").read_text()
    assert len(client(project).search_model_versions("name='irra'")) == 1


def test_an_ablation_puts_all_trainings_into_one_table(project: Project) -> None:
    folder = run_local(project, "--ablation", "--losses", "itc", "sdm+id", "--seeds", "0", "1")
    table = (folder / "compare" / "comparison_table").read_text().splitlines()
    assert [line.split(" | ")[:2] for line in table[2:]] == [["| itc", "2"], ["| sdm+id", "2"]]
    assert "data:image/png" in (folder / "compare" / "comparison_report").read_text()


def test_of_two_trainings_with_equal_weights_each_has_its_own_evaluation(project: Project) -> None:
    for _ in range(2):
        run_local(project, "--set", "train.seed=7")
    twins = [run for run in runs_of_kubeflow(project) if run.data.params.get("train.seed") == "7"]
    assert len({run.data.tags["irra.model_fingerprint"] for run in twins}) == 1
    logged = [client(project).get_metric_history(run.info.run_id, "final/test/t2i/R1") for run in twins]
    assert [len(history) for history in logged] == [1, 1]


def test_a_schedule_trains_only_if_the_champion_is_outdated_and_compares_on_the_new_data(project: Project) -> None:
    folders = [
        run_scheduled(project, "registry.model_name=nightly", *changes)
        for changes in ((), (), ("prepare.synthetic.seed=9",))
    ]
    ran = [{path.name for path in folder.iterdir()} for folder in folders]
    assert "register" in ran[0]
    assert ran[1] == {"prepare", "outdated"}
    assert "with these parameters" in (folders[1] / "outdated" / "champion_comparison").read_text()
    assert {"champion", "train", "gate"} <= ran[2]
    assert "of the champion of nightly (version 1)" in (folders[2] / "gate" / "decision").read_text()


def test_a_failed_task_fails_the_run_and_shows_its_log(project: Project) -> None:
    annotate(project.folder / "raw", "train", "val", "test")  # pictures that are not there
    command = ["python", "-m", "pipeline", "run-local", "--set", "prepare.dataset_name=mine"]
    command += ["--set", "prepare.synthetic=null", "--set", "prepare.root_dir=raw"]
    done = subprocess.run(command, cwd=project.folder, env=project.environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: 3 of the 3 images named in the annotations do not exist" in done.stdout
    assert "'prepare'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr
