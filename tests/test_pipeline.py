"""The whole pipeline with `dvc repro`, as a user runs it, in a throw-away copy of the project."""

import csv
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from components.results import read_results
from components.stages import ROWS
from irra.checkpoint import model_fingerprint
from irra.metrics import METRIC_NAMES
from tests.projects import Project, commit, new_project

ALL = {stage.name for stage in ROWS if stage.in_dvc} - {"inputs"}  # which runs each time
METRICS = "reports/evaluate/metrics.json"
pytestmark = [pytest.mark.xdist_group("pipeline"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = new_project(tmp_path_factory.mktemp("project"))
    assert project.stages_run("dvc", "repro") == ALL
    commit(project)
    return project


def mlflow_runs(project: Project) -> list:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("irra")
    return client.search_runs([experiment.experiment_id])


def test_reports_hold_metrics_of_both_splits_and_directions(project: Project) -> None:
    results = read_results(project.folder / "reports/evaluate")
    metrics = results["metrics"]
    assert {(split, way) for split, ways in metrics.items() for way in ways} == {
        (split, way) for split in ("val", "test") for way in ("t2i", "i2t")
    }
    low, high = results["intervals"]["test"]["t2i"]["mAP"]
    assert low <= metrics["test"]["t2i"]["mAP"] <= high


def test_every_picture_opens(project: Project) -> None:
    pictures = sorted(path.name for path in (project.folder / "reports").rglob("*.png"))
    assert pictures == [
        "cmc.png",
        "contact_sheet.png",
        "losses.png",
        "retrieval_best.png",
        "retrieval_random.png",
        "retrieval_worst.png",
        "validation.png",
    ]
    for path in (project.folder / "reports").rglob("*.png"):
        Image.open(path).verify()


def test_one_mlflow_run_holds_training_and_evaluation(project: Project) -> None:
    (run,) = mlflow_runs(project)
    assert (run.info.run_name, run.info.status) == ("sdm+mlm+id, seed 0", "FINISHED")
    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    assert params["train.loss_names"] == "sdm+mlm+id"
    assert params["prepare.synthetic.train_ids"] == "12"
    assert params["tokenize.mask_probability"] == "0.05"
    assert {"loss/total", "loss/sdm", "loss/mlm", "loss/id", "lr/default", "lr/new", "accuracy/mlm"} <= set(metrics)
    assert {"val/t2i/R1", "final/test/t2i/R1", "final/val/i2t/mAP", "images_per_second"} <= set(metrics)
    assert tags["irra.model_fingerprint"] == model_fingerprint(project.folder / "model")
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "synthetic"
    assert json.loads(dataset.dataset.source) == {"uri": str(project.folder / "data/prepared")}
    r1 = json.loads((project.folder / METRICS).read_text())["test"]["R1"]
    assert metrics["final/test/t2i/R1"] == r1
    assert metrics["interval/test/t2i/R1_low"] <= r1 <= metrics["interval/test/t2i/R1_high"]


def test_mlflow_keeps_model_and_pictures(project: Project) -> None:
    (run,) = mlflow_runs(project)
    artifacts = project.folder / "mlartifacts" / run.info.run_id / "artifacts"
    (output,) = run.outputs.model_outputs
    logged = project.folder / "mlartifacts/models" / output.model_id / "artifacts"
    assert model_fingerprint(logged / "artifacts/model") == model_fingerprint(project.folder / "model")
    pictures = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*.png")}
    assert {"evaluate/retrieval_best.png", "prepare/contact_sheet.png", "train/losses.png"} <= pictures
    drawn = (project.folder / "reports").rglob("*.png")
    assert {Path(name).name for name in pictures} == {path.name for path in drawn}
    assert (artifacts / "report.html").is_file()


def test_repro_again_does_nothing(project: Project) -> None:
    assert project.stages_run("dvc", "repro") == set()


def test_summary_shows_the_table(project: Project) -> None:
    shown = project.run("python", "-m", "app.summary")
    assert "mINP" in shown
    assert "make mlflow" in shown
    assert "reports/report/retrieval_best.png" in shown
    assert "reports/report/report.html" in shown


def test_dvc_shows_one_row_of_metrics(project: Project) -> None:
    ((path, shown),) = json.loads(project.run("dvc", "metrics", "show", "--json"))[""]["data"].items()
    assert path == METRICS
    columns = {f"{split}.{name}" for split, values in shown["data"].items() for name in values}
    assert columns == {f"{split}.{name}" for split in ("test", "val") for name in METRIC_NAMES}


def test_metrics_and_parameters_of_experiments_need_no_path_in_their_names(project: Project) -> None:
    header, *_ = csv.reader(project.run("dvc", "exp", "show", "--csv").splitlines())
    assert {"test.R1", "val.mINP", "train.lr"} <= set(header)
    assert not [name for name in header if ":" in name]  # file:name, where two files have the same


@pytest.mark.system
def test_the_table_of_experiments_has_no_column_for_a_file(project: Project) -> None:
    project.run("dvc", "exp", "run", "--temp", "--name", "seeded", "-S", "train.seed=1")
    printed = project.run("make", "--dry-run", "experiments", "OPTIONS=--csv").splitlines()
    (command,) = [line for line in printed if "exp show" in line]  # a make inside make also prints its folders
    shown = project.run("sh", "-c", command.replace(".venv/bin/", ""))
    header, *rows = csv.reader(shown.splitlines())
    assert "train.seed" in header
    assert not [name for name in header if "/" in name or name == "model"]
    assert any("seeded" in row for row in rows)


def test_dvc_shows_plots(project: Project) -> None:
    shown = json.loads(project.run("dvc", "plots", "show", "--json"))
    assert "errors" not in shown
    names = {name for name in shown["data"] if not name.endswith(".png")}
    assert names > {"loss", "validation", "cmc"}


@pytest.mark.system
def test_an_edited_learning_rate_reruns_training_and_a_reverted_one_is_restored(project: Project) -> None:
    before = model_fingerprint(project.folder / "model")
    original = (project.folder / "params.yaml").read_text()
    project.set("train", lr=5e-4)
    assert project.stages_run("dvc", "repro") == {"train", "evaluate", "report", "index"}
    assert model_fingerprint(project.folder / "model") != before
    assert "train.lr" in project.run("dvc", "params", "diff")
    (project.folder / "params.yaml").write_text(original)
    assert project.stages_run("dvc", "repro") == set()
    assert model_fingerprint(project.folder / "model") == before


@pytest.mark.system
def test_an_edited_masking_rate_reruns_tokenize_and_what_follows(project: Project) -> None:
    original = (project.folder / "params.yaml").read_text()
    project.set("tokenize", mask_probability=0.06)
    assert project.stages_run("dvc", "repro") == ALL - {"prepare"}
    (project.folder / "params.yaml").write_text(original)
    assert project.stages_run("dvc", "repro") == set()


@contextmanager
def edited(project: Project, name: str) -> Iterator[None]:
    """Append a line to a source file until the context ends."""
    path = project.folder / name
    source = path.read_text()
    path.write_text(source + "\n# edited\n")
    yield
    path.write_text(source)


def changed_stages(project: Project) -> set[str]:
    """Return the stages that DVC would run again because a dependency changed."""
    status = json.loads(project.run("dvc", "status", "--json"))
    changed = {stage for stage, changes in status.items() if any("changed deps" in change for change in changes)}
    return changed - {"inputs"}  # which runs each time


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("components/figures/curves.py", {"report"}),
        ("components/report.py", {"report"}),
        ("components/tracking/run.py", set()),
        ("components/tracking/registry.py", set()),
        ("components/s3/client.py", set()),
        ("irra/search/engine.py", set()),
        ("irra/search/build.py", {"index"}),
        ("irra/losses.py", {"train"}),
        ("irra/data/masking.py", {"tokenize", "train", "evaluate", "index"}),
        ("irra/data/datasets.py", ALL),
    ],
)
def test_edited_code_reruns_the_stages_whose_outputs_it_can_change(
    project: Project, name: str, stages: set[str]
) -> None:
    with edited(project, name):
        assert changed_stages(project) == stages


def test_bytecode_does_not_count_as_an_edit(project: Project) -> None:
    for folder in ("irra/model", "irra/synthetic", "components/figures"):
        cache = project.folder / folder / "__pycache__"
        cache.mkdir(exist_ok=True)
        (cache / "edited.cpython-311.pyc").write_bytes(b"")
    assert changed_stages(project) == set()


def test_an_edited_figure_reruns_only_the_report(project: Project) -> None:
    with edited(project, "components/figures/curves.py"):
        assert project.stages_run("dvc", "repro") == {"report"}
    assert project.stages_run("dvc", "repro") == set()


@pytest.mark.system
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_stopped_training_that_resumes_gives_the_same_weights(
    project: Project, tmp_path: Path, signum: int, status: int
) -> None:
    command = ["python", "-m", "components.train", "--model", str(tmp_path / "model")]
    command += ["--report", str(tmp_path / "report"), "--checkpoints", str(tmp_path / "checkpoints")]
    process = subprocess.Popen(
        command, cwd=project.folder, env=project.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "checkpoints" / "state.safetensors").exists():
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signum)
    assert process.wait() == status
    assert (tmp_path / "checkpoints" / "state.safetensors").exists()
    assert not (tmp_path / "model").exists()
    project.run(*command)
    assert model_fingerprint(tmp_path / "model") == model_fingerprint(project.folder / "model")
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.system
def test_experiments_run_in_their_own_workspace_and_share_the_mlflow_store(project: Project) -> None:
    runs = len(mlflow_runs(project))
    project.run("dvc", "exp", "run", "--temp", "--name", "contrast", "-S", "train.loss_names=itc")
    assert len(mlflow_runs(project)) == runs + 1
    shown = json.loads(project.run("dvc", "exp", "show", "--json"))
    experiments = [e for rev in shown for e in (rev.get("experiments") or [])]
    assert "contrast" in [e["name"] for e in experiments]
    assert any(run.data.tags.get("dvc.exp_name") == "contrast" for run in mlflow_runs(project))


@pytest.mark.system
def test_queued_experiments_run_and_are_compared_with_the_commit(project: Project) -> None:
    project.run("dvc", "exp", "run", "--queue", "--name", "slower", "-S", "train.lr=2e-3")
    assert "Queued" in project.run("dvc", "queue", "status")
    project.run("dvc", "queue", "start")
    deadline = time.monotonic() + 200
    while "Success" not in (status := project.run("dvc", "queue", "status")):
        assert "Failed" not in status
        assert time.monotonic() < deadline, status
        time.sleep(1)
    params = json.loads(project.run("dvc", "params", "diff", "--json", "HEAD", "slower"))
    assert (params["params.yaml"]["train.lr"]["old"], params["params.yaml"]["train.lr"]["new"]) == (1e-3, 2e-3)
    compared = json.loads(project.run("dvc", "metrics", "diff", "--all", "--json", "HEAD", "slower"))
    r1 = compared[METRICS]["test.R1"]
    shown = json.loads(project.run("dvc", "metrics", "show", "--json"))
    assert r1["old"] == shown[""]["data"][METRICS]["data"]["test"]["R1"]
    page = Path(project.run("dvc", "plots", "diff", "HEAD", "slower").strip().removeprefix("file://"))
    assert '"rev": "slower"' in page.read_text()
