"""The Kubeflow pipeline in containers, run by kfp's DockerRunner and compared with `dvc repro`."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from irra.checkpoint import model_fingerprint
from tests.docker.engine import NEEDS_DOCKER, docker
from tests.projects import Project

pytestmark = [*NEEDS_DOCKER, pytest.mark.system]

# Whatever kfp starts in this image ends at once with status 0.
DEAD = """
FROM {image}
USER 0
RUN ln -sf /bin/true /bin/sh
"""


@pytest.fixture(scope="module")
def run(project: Project, image: str) -> Path:
    """Run the pipeline and return the folder of the run."""
    shown = project.run("make", "run-docker", f"IMAGE={image}")
    return project.folder / shown.rpartition("outputs: ")[2].splitlines()[0]


@pytest.fixture
def dead_image(image: str, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "Dockerfile").write_text(DEAD.format(image=image))
    docker("build", "--quiet", "--tag", "irra-python-pipeline:dead", str(tmp_path))
    yield "irra-python-pipeline:dead"
    docker("rmi", "irra-python-pipeline:dead")


def fail(project: Project, *options: str) -> str:
    """Run `run-docker`, which must fail, and return its standard error."""
    command = ["python", "-m", "pipeline", "run-docker", *options]
    done = subprocess.run(command, cwd=project.folder, env=project.environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr


def test_containers_give_the_same_weights_and_metrics_as_dvc(project: Project, run: Path) -> None:
    assert model_fingerprint(run / "train" / "model") == model_fingerprint(project.folder / "model")
    found, expected = run / "evaluate" / "results", project.folder / "reports" / "evaluate"
    assert json.loads((found / "metrics.json").read_text()) == json.loads((expected / "metrics.json").read_text())


def test_containers_log_to_the_project_s_mlflow(project: Project, run: Path) -> None:
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("irra")
    runs = [run for run in client.search_runs([experiment.experiment_id]) if "kfp.run_id" in run.data.tags]
    assert len(runs) == 1
    assert {"loss/total", "final/test/t2i/R1"} <= set(runs[0].data.metrics)
    assert client.get_model_version_by_alias("irra", "champion").run_id == runs[0].info.run_id


def test_a_container_that_ends_without_a_result_is_a_failure(project: Project, dead_image: str) -> None:
    shown = fail(project, "--image", dead_image)
    assert shown.startswith("error: ") or "\nerror: " in shown
    assert "prepare" in shown.splitlines()[-1]


def test_a_failed_task_fails_the_run(project: Project, image: str) -> None:
    shown = fail(project, "--image", image, "--set", "train.pretrained=nowhere.pt")
    assert "'train'" in shown.splitlines()[-1]


def test_a_missing_image_is_named(project: Project) -> None:
    shown = fail(project, "--image", "irra-python-pipeline:missing")
    assert "image irra-python-pipeline:missing is not here and cannot be pulled" in shown.splitlines()[-1]
