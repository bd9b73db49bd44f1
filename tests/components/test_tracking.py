import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from components.tracking import tracker as tracker_module
from components.tracking import waiting
from components.tracking.datasets import TrackedDataset
from components.tracking.notes import note_run, noted_run
from components.tracking.run import open_run
from components.tracking.spool import send_entries
from components.tracking.store import MODEL_FINGERPRINT_TAG, tracking_uri
from irra.utils.errors import UserError

pytestmark = pytest.mark.xdist_group("mlflow")  # one worker: the server and the first database are slow to start
ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"
DATASET = TrackedDataset("synthetic", "0123456789abcdef" * 4, "local", '{"uri": "/there"}', "{}", "{}")


@pytest.fixture(scope="session")
def first_use(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder where a process opened a first run, and everything the process printed."""
    folder = tmp_path_factory.mktemp("first-use")
    code = "from components.tracking.run import open_run\nwith open_run('train', system_metrics=True): pass"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"PYTHONPATH": str(ROOT), "MLFLOW_EXPERIMENT_NAME": "first use"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    return folder, done.stdout + done.stderr


@pytest.fixture
def project(
    tmp_path: Path, first_use: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, clean_environment: None
) -> Path:
    """An empty project with a store whose tables exist."""
    folder = tmp_path / "a project"
    folder.mkdir()
    shutil.copy(first_use[0] / "mlflow.db", folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def clean_environment() -> Iterator[None]:
    """Remove the variables that tracking reads, and afterwards those that it sets."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("MLFLOW_", "DVC_", "KFP_", "IRRA_")):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


def get_run(run_id: str | None) -> Run:
    assert run_id
    return MlflowClient(tracking_uri()).get_run(run_id)


def history(run_id: str | None, metric: str) -> list[tuple[int, float]]:
    assert run_id
    points = MlflowClient(tracking_uri()).get_metric_history(run_id, metric)
    return sorted((point.step, point.value) for point in points)


def artifacts(run_id: str | None, folder: str | None = None) -> list[str]:
    assert run_id
    return [entry.path for entry in MlflowClient(tracking_uri()).list_artifacts(run_id, folder)]


def make_run(
    stage: str = "train",
    metrics: dict[str, float] | None = None,
    tags: dict[str, str] | None = None,
    stop: BaseException | None = None,
    **options: Any,
) -> str:
    """Open a run, log, raise `stop` inside it, and return its id ("" without a server)."""
    with contextlib.suppress(*([type(stop)] if stop else [])), open_run(stage, **options) as tracker:
        tracker.log_metrics(metrics or {}, 0)
        tracker.set_tags(tags or {})
        if stop:
            raise stop
    return tracker.run_id or ""


# ---- what is recorded ----


def test_the_first_run_in_a_new_store_prints_nothing(first_use: tuple[Path, str]) -> None:
    assert first_use[1] == ""


def test_nested_parameters_are_flattened(project: Path) -> None:
    with open_run("train") as tracker:
        tracker.log_params(
            {"train": {"lr": 1e-5, "amp": True, "name": "x", "size": [384, 128], "optim": {"eps": None}}}
        )
    expected = {"lr": "1e-05", "amp": "true", "name": "x", "size": "[384, 128]", "optim.eps": "null"}
    assert get_run(tracker.run_id).data.params == {f"train.{name}": value for name, value in expected.items()}


def test_a_long_parameter_is_cut(project: Path) -> None:
    with open_run("train") as tracker:
        tracker.log_params({"text": "x" * 7000})
    assert get_run(tracker.run_id).data.params == {"text": "x" * 6000}


def test_every_step_of_a_metric_is_kept(project: Path) -> None:
    with open_run("train") as tracker:
        for step in range(1500):
            tracker.log_metrics({"loss/sdm": 1 / (step + 1)}, step)
    assert history(tracker.run_id, "loss/sdm") == [(step, 1 / (step + 1)) for step in range(1500)]


def test_a_metric_carries_the_time_at_which_it_was_measured(project: Path) -> None:
    with open_run("train") as tracker:
        before = time.time() * 1000
        tracker.log_metrics({"loss": 1.0}, 0)
        after = time.time() * 1000
        time.sleep(0.05)
    assert tracker.run_id
    (point,) = MlflowClient(tracking_uri()).get_metric_history(tracker.run_id, "loss")
    assert before - 1 <= point.timestamp <= after


def test_metrics_arrive_while_the_run_is_open(project: Path) -> None:
    with open_run("train") as tracker:
        tracker.log_metrics({"loss": 1.0}, 0)
        assert eventually(lambda: history(tracker.run_id, "loss") == [(0, 1.0)])


def test_entries_sent_twice_count_once(project: Path) -> None:
    with open_run("train") as tracker:
        tracker.log_metrics({"loss": 1.0, "nan": float("nan")}, 0)
        tracker.log_params({"a": 1})
        tracker.log_dataset(DATASET, "train")
        entries = list(tracker._pending)
        send_entries(MlflowClient(tracking_uri()), str(tracker.run_id), entries)
    run = get_run(tracker.run_id)
    assert (history(tracker.run_id, "loss"), len(run.inputs.dataset_inputs)) == ([(0, 1.0)], 1)


def test_the_dataset_is_an_input_of_the_run(project: Path) -> None:
    with open_run("train") as tracker:
        tracker.log_dataset(DATASET, "train")
    (logged,) = get_run(tracker.run_id).inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("synthetic", ("0123456789abcdef" * 4)[:36])


def test_files_and_folders_become_artifacts(project: Path) -> None:
    (project / "pictures").mkdir()
    for name in ("report.html", "pictures/a.png"):
        (project / name).write_text(name)
    with open_run("train") as tracker:
        tracker.log_artifact(project / "report.html")
        tracker.log_artifact(project / "report.html", "evaluate")
        tracker.log_artifact(project / "pictures", "evaluate")
    assert artifacts(tracker.run_id) == ["evaluate", "report.html"]
    assert artifacts(tracker.run_id, "evaluate") == ["evaluate/pictures", "evaluate/report.html"]
    assert artifacts(tracker.run_id, "evaluate/pictures") == ["evaluate/pictures/a.png"]


def test_a_model_becomes_the_artifact_model(project: Path) -> None:
    (project / "best").mkdir()
    (project / "best" / "weights.safetensors").write_text("w")
    with open_run("train") as tracker:
        tracker.log_folder(project / "best", "model")
    assert artifacts(tracker.run_id, "model") == ["model/weights.safetensors"]


def test_system_metrics_are_sampled(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with open_run("train", system_metrics=True) as tracker:
        assert eventually(lambda: "system/cpu_utilization_percentage" in get_run(tracker.run_id).data.metrics)


# ---- tags ----


def test_the_surroundings_become_tags(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"DVC_EXP_NAME": "odd-owl", "DVC_STAGE": "train", "IRRA_IMAGE": "irra:1", "KFP_RUN_ID": "k1"}
    variables |= {"GIT_COMMIT": "0a1b2c"}  # set in images; this folder is not a repository
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tags = get_run(make_run()).data.tags
    names = ("dvc.exp_name", "dvc.stage", "image", "kfp.run_id", "mlflow.source.git.commit")
    assert [tags[name] for name in names] == list(variables.values())


def test_the_commit_and_whether_it_was_changed_become_tags(project: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (project / "code.py").write_text("1")
    for command in (["init", "-q"], ["add", "code.py"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    clean = get_run(make_run()).data.tags
    (project / "code.py").write_text("2")
    changed = get_run(make_run()).data.tags
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert [clean["mlflow.source.git.commit"], clean["git.dirty"], changed["git.dirty"]] == [head, "false", "true"]


def test_a_later_stage_leaves_the_tags_of_the_first(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train")
    run_id = make_run("train")
    monkeypatch.setenv("DVC_STAGE", "evaluate")
    monkeypatch.setenv("IRRA_IMAGE", "irra:2")
    make_run("evaluate", run_id=run_id)
    tags = get_run(run_id).data.tags
    assert (tags["dvc.stage"], tags["image"]) == ("train", "irra:2")


# ---- how a run ends ----


@pytest.mark.parametrize(
    ("stop", "status"),
    [(ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED"), (None, "FINISHED")],
)
def test_the_status_says_how_the_stage_ended(project: Path, stop: BaseException | None, status: str) -> None:
    assert get_run(make_run(stop=stop)).info.status == status


def test_what_was_logged_before_a_failure_is_kept(project: Path) -> None:
    run_id = make_run(metrics={"loss": 2.0}, stop=ValueError("diverged"))
    assert history(run_id, "loss") == [(0, 2.0)]


# ---- which run ----


def test_the_run_of_the_environment_is_attached(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = make_run(run_name="first")
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    with open_run("evaluate", run_name="second", model_fingerprint="abc") as tracker:
        assert get_run(run_id).info.status == "RUNNING"
    run = get_run(run_id)
    assert (tracker.run_id, run.info.run_name, run.info.status) == (run_id, "first", "FINISHED")


def test_the_experiment_of_the_environment_is_used(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = MlflowClient(tracking_uri()).create_experiment("elsewhere")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", elsewhere)
    assert get_run(make_run()).info.experiment_id == elsewhere


@pytest.mark.parametrize("run_id", ["0" * 32, "no such run!"])
def test_an_unknown_run_in_the_environment_is_the_users_mistake(
    project: Path, monkeypatch: pytest.MonkeyPatch, run_id: str
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(UserError, match=f"MLFLOW_RUN_ID.*{run_id}"):
        make_run()


def test_a_deleted_run_in_the_environment_is_the_users_mistake(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = make_run()
    MlflowClient(tracking_uri()).delete_run(run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(UserError, match="deleted"):
        make_run()


def test_a_resumed_stage_goes_on_in_its_run(project: Path) -> None:
    run_id = make_run()
    assert make_run(run_id=run_id) == run_id


def test_a_resumed_stage_whose_run_is_gone_gets_a_new_one(project: Path) -> None:
    assert make_run(run_id="0" * 32) != "0" * 32


def test_evaluate_finds_the_latest_run_of_the_model(project: Path) -> None:
    late = ValueError("after the model was written")  # runs of any status are found
    trained = [make_run(tags={MODEL_FINGERPRINT_TAG: model}, stop=late) for model in ("aaa", "bbb", "bbb", "ccc")]
    assert make_run("evaluate", model_fingerprint="bbb") == trained[2]


def test_evaluate_finds_the_run_that_made_this_model_among_those_with_equal_weights(project: Path) -> None:
    first, _ = (make_run(tags={MODEL_FINGERPRINT_TAG: "twins"}) for _ in range(2))
    note_run(project / "note.json", "twins", first)
    noted = noted_run(project / "note.json", "twins")
    assert make_run("evaluate", run_id=noted, model_fingerprint="twins") == first


def test_a_model_without_a_run_gets_one_that_is_found_again(project: Path) -> None:
    run_id = make_run("evaluate", model_fingerprint="abc")
    assert make_run("evaluate", model_fingerprint="abc") == run_id


def test_a_changed_parameter_of_an_attached_run_becomes_a_tag(project: Path) -> None:
    with open_run("evaluate") as tracker:
        tracker.log_params({"evaluate": {"batch_size": 8, "k": 5}})
    with open_run("evaluate", run_id=tracker.run_id) as again:
        again.log_params({"evaluate": {"batch_size": 16, "k": 5}})
        again.log_metrics({"final/R1": 50.0}, 0)
    run = get_run(tracker.run_id)
    changed = {name: value for name, value in run.data.tags.items() if name.startswith("changed.")}
    assert (run.data.params["evaluate.batch_size"], changed) == ("8", {"changed.evaluate.batch_size": "16"})
    assert run.data.metrics == {"final/R1": 50.0}


def test_the_experiment_can_be_chosen(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiments = []
    for name in ("mine", ""):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
        identity = get_run(make_run()).info.experiment_id
        experiments.append(MlflowClient(tracking_uri()).get_experiment(identity).name)
    assert experiments == ["mine", "irra"]


def test_a_deleted_experiment_is_the_users_mistake(project: Path) -> None:
    client = MlflowClient(tracking_uri())
    client.delete_experiment(get_run(make_run()).info.experiment_id)
    with pytest.raises(UserError, match="'irra' is deleted"):
        make_run()


# ---- which store ----


def test_the_environment_chooses_the_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert tracking_uri() == "http://there:5000"


def test_the_default_store_is_in_the_project(project: Path) -> None:
    run = get_run(make_run())
    assert tracking_uri() == f"sqlite:///{project}/mlflow.db"
    assert run.info.artifact_uri == f"{(project / 'mlartifacts').as_uri()}/{run.info.run_id}/artifacts"


def test_a_dvc_experiment_in_a_temporary_workspace_uses_the_store_of_its_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = make_run()
    workspace = project / ".dvc" / "tmp" / "exps" / "tmpx1y2"
    workspace.mkdir(parents=True)
    monkeypatch.chdir(workspace)
    (workspace / "report.html").write_text("r")
    with open_run("train", run_id=run_id) as tracker:
        tracker.log_artifact(Path("report.html"))
    assert (project / "mlartifacts" / run_id / "artifacts" / "report.html").read_text() == "r"


@pytest.mark.parametrize("uri", ["htp://there:5000", "file:///tmp/mlruns", "mlruns"])
def test_an_unusable_store_is_the_users_mistake(project: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=f"MLFLOW_TRACKING_URI: '{uri}'"):
        make_run()


# ---- a server ----


class Server:
    """`mlflow server` in its own process group, which can be frozen and killed."""

    def __init__(self, folder: Path, artifacts: str = "") -> None:
        self.folder = folder
        self.artifacts = artifacts or f"{folder}/served"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.process:
            return
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        store += ["--artifacts-destination", self.artifacts]
        command = [sys.executable, "-m", "mlflow", "server", *store, "--port", str(self.port), "--workers", "1"]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | quiet, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        assert eventually(self.answers, 120), (self.folder / "server.log").read_text()

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def signal(self, number: int) -> None:
        assert self.process
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def any_server(tmp_path_factory: pytest.TempPathFactory, first_use: tuple[Path, str]) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(first_use[0] / "mlflow.db", folder)
    server = Server(folder)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(any_server: Server, project: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    any_server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", any_server.uri)
    return any_server


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether `condition` becomes true within a bounded time."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return met


def warnings(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Return every line printed since the start of the test; each should be one of our warnings."""
    output = capfd.readouterr()
    return [*output.out.splitlines(), *output.err.splitlines()]


def test_a_server_receives_everything(server: Server, project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "report.html").write_text("r")
    with open_run("train", system_metrics=True) as tracker:
        tracker.log_params({"lr": 1e-5})
        tracker.log_metrics({"loss": 1.0}, 3)
        tracker.log_dataset(DATASET, "train")
        tracker.log_artifact(project / "report.html")
    run = get_run(tracker.run_id)
    assert (run.info.status, run.data.params, run.data.metrics["loss"]) == ("FINISHED", {"lr": "1e-05"}, 1.0)
    assert (artifacts(tracker.run_id), len(run.inputs.dataset_inputs)) == (["report.html"], 1)
    assert warnings(capfd) == []


def test_a_server_that_answers_again_in_time_has_lost_nothing(
    server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(tracker_module, "FLUSH_SECONDS", 0.2)
    with open_run("train") as tracker:
        server.signal(signal.SIGSTOP)
        tracker.log_metrics({"loss": 1.0}, 0)
        time.sleep(2.5)  # two attempts fail
        server.signal(signal.SIGCONT)
        tracker.log_metrics({"loss": 0.5}, 1)
        assert eventually(lambda: len(history(tracker.run_id, "loss")) == 2)
    assert history(tracker.run_id, "loss") == [(0, 1.0), (1, 0.5)]
    assert warnings(capfd) == []


def test_a_server_that_hangs_holds_nothing_up(
    server: Server, project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(tracker_module, "CLOSE_SECONDS", 5.0)
    with open_run("train", system_metrics=True) as tracker:
        server.signal(signal.SIGSTOP)
        for step in range(100):
            tracker.log_metrics({"loss": 1.0}, step)
        tracker.log_artifact(project / "mlflow.db")
    server.signal(signal.SIGCONT)
    (line,) = warnings(capfd)
    assert "uploading" in line
    assert "no answer within 1 s" in line


def test_a_killed_server_costs_each_run_one_warning(
    server: Server, project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(tracker_module, "CLOSE_SECONDS", 10.0)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with open_run("train", system_metrics=True) as tracker:
        with open_run("train") as ending:
            ending.log_metrics({"loss": 1.0}, 0)
            server.kill()
        (line,) = warnings(capfd)
        assert "Connection refused" in line
        tracker.log_metrics({"loss": 1.0}, 0)
        assert eventually(lambda: tracker._lost)
        tracker.log_metrics({"loss": 1.0}, 1)
        tracker.log_params({"lr": 1e-5})
        tracker.set_tags({"a": "b"})
        tracker.log_dataset(DATASET, "train")
        tracker.log_folder(project, "model")
    (line,) = warnings(capfd)
    assert "metrics are kept on disk" in line


def test_a_server_that_is_down_at_the_start_costs_one_warning(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    with open_run("train", system_metrics=True) as tracker:
        tracker.log_params({"lr": 1e-5})
        tracker.log_metrics({"loss": 1.0}, 0)
        tracker.log_dataset(DATASET, "train")
        tracker.log_artifact(project)
    assert tracker.run_id is None
    (line,) = warnings(capfd)
    assert line.startswith(f"warning: MLflow at {NOWHERE}: opening a run failed ([Errno 111] Connection refused)")


def test_a_server_that_never_answers_at_the_start_costs_one_warning(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with open_run("train") as tracker:
            tracker.log_metrics({"loss": 1.0}, 0)
    assert tracker.run_id is None
    (line,) = warnings(capfd)
    assert "no answer within 1 s" in line


def test_a_warning_shows_no_password(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE.replace("//", "//me:secret@"))
    make_run()
    assert "secret" not in "".join(warnings(capfd))


def test_a_broken_artifact_store_leaves_the_metrics(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "mlartifacts").write_text("a file where a folder should be")
    with open_run("train") as tracker:
        for step in range(3):
            tracker.log_artifact(project / "mlflow.db")
            tracker.log_metrics({"loss": 1.0}, step)
    assert len(history(tracker.run_id, "loss")) == 3
    (line,) = warnings(capfd)
    assert "Metrics are still sent" in line


def test_settings_of_the_user_win_over_the_defaults(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    make_run()
    assert (os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"], os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) == ("7", "2")
