"""What an outage of MLflow's server costs: nothing, if it comes back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.tracking import tracker as tracker_module
from components.tracking import waiting
from components.tracking.owner import OWNER_TAG, is_gone, this_process
from components.tracking.run import open_run
from components.tracking.spool import Spool, send_entries, spool_folder
from components.tracking.store import MODEL_FINGERPRINT_TAG, tracking_uri
from components.tracking.sync import NOT_SENT_TAG
from tests.components.test_tracking import (  # noqa: F401
    Server,
    any_server,
    artifacts,
    clean_environment,
    eventually,
    first_use,
    get_run,
    history,
    make_run,
    project,
    server,
    warnings,
)
from tests.imports import ROOT

pytestmark = pytest.mark.xdist_group("mlflow")
STEPS = 30


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:  # noqa: F811
    for name, seconds in {"FLUSH_SECONDS": 0.2, "PATIENCE_SECONDS": 0.5, "CLOSE_SECONDS": 5.0}.items():
        monkeypatch.setattr(tracker_module, name, seconds)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def cut_off(server: Server, project: Path, **options: str) -> str:  # noqa: F811
    """Make a run whose server dies at its first step and stays away until it has ended; returns its id."""
    (project / "report.html").write_text("r")
    with open_run("train", **options) as tracker:
        server.kill()
        for step in range(STEPS):
            tracker.log_metrics({"loss": float(step)}, step)
        tracker.log_artifact(project / "report.html")
    server.start()
    return tracker.run_id or ""


def sync() -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "components.tracking.sync"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_an_outage_longer_than_our_patience_loses_nothing(
    server: Server,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
) -> None:
    with open_run("train") as tracker:
        server.kill()
        tracker.log_metrics({"loss": 1.0}, 0)
        assert eventually(lambda: tracker._lost)
        tracker.log_metrics({"loss": 0.5}, 1)
        server.start()
        assert eventually(lambda: not tracker._lost)
    assert history(tracker.run_id, "loss") == [(0, 1.0), (1, 0.5)]
    assert get_run(tracker.run_id).info.status == "FINISHED"
    lost, back = warnings(capfd)
    assert ("sending metrics failed" in lost, back.endswith("is back; what was kept was sent")) == (True, True)


def test_a_run_is_not_finished_before_all_of_it_was_sent(server: Server, project: Path) -> None:  # noqa: F811
    run_id = cut_off(server, project)
    assert (get_run(run_id).info.status, history(run_id, "loss")) == ("RUNNING", [])


def test_the_next_stage_sends_what_was_left(server: Server, project: Path) -> None:  # noqa: F811
    run_id = cut_off(server, project)
    make_run("evaluate")
    assert history(run_id, "loss") == [(step, float(step)) for step in range(STEPS)]
    assert (get_run(run_id).info.status, artifacts(run_id)) == ("FINISHED", ["report.html"])
    assert list(spool_folder().iterdir()) == []


def test_the_command_sends_what_was_left(server: Server, project: Path) -> None:  # noqa: F811
    run_id = cut_off(server, project)
    done = sync()
    assert (done.returncode, done.stdout) == (0, f"1 runs sent to {server.uri}\n")
    assert (get_run(run_id).info.status, len(history(run_id, "loss"))) == ("FINISHED", STEPS)


def test_the_command_says_that_the_server_is_still_away(server: Server, project: Path) -> None:  # noqa: F811
    cut_off(server, project)
    server.kill()
    done = sync()
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "what is left stays in" in done.stderr


def test_a_stage_that_starts_in_an_outage_gets_its_run_later(server: Server, project: Path) -> None:  # noqa: F811
    server.kill()
    cut_off(server, project, run_name="early")
    make_run("evaluate")
    client = MlflowClient(tracking_uri())
    experiment = client.get_experiment_by_name("irra").experiment_id
    (found,) = client.search_runs([experiment], "run_name = 'early'")
    assert (found.info.status, len(history(found.info.run_id, "loss"))) == ("FINISHED", STEPS)
    client.set_terminated(found.info.run_id)
    client.delete_run(found.info.run_id)


def test_a_stage_that_starts_in_an_outage_joins_the_run_of_its_model(server: Server, project: Path) -> None:  # noqa: F811
    run_id = make_run(tags={MODEL_FINGERPRINT_TAG: "outage"})
    server.kill()
    cut_off(server, project, model_fingerprint="outage")
    make_run()
    assert len(history(run_id, "loss")) == STEPS


def test_a_file_that_changed_since_is_not_sent_and_the_run_is_not_finished(
    server: Server,  # noqa: F811
    project: Path,  # noqa: F811
) -> None:
    run_id = cut_off(server, project)
    (project / "report.html").write_text("of another run")
    make_run()
    run = get_run(run_id)
    assert (run.info.status, artifacts(run_id), len(history(run_id, "loss"))) == ("FAILED", [], STEPS)
    assert "report.html" in run.data.tags[NOT_SENT_TAG]


def test_what_a_killed_process_kept_is_sent(server: Server, project: Path) -> None:  # noqa: F811
    code = f"""
import time
from components.tracking import run, tracker
tracker.FLUSH_SECONDS = 0.2
with run.open_run("train") as tracker:
    print(tracker.run_id, flush=True)
    input()
    for step in range({STEPS}):
        tracker.log_metrics({{"loss": float(step)}}, step)
    time.sleep(100)
"""
    command, environment = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdin
        run_id = process.stdout.readline().strip()
        server.kill()
        process.stdin.write("\n")
        process.stdin.flush()
        assert eventually(lambda: any(len(path.read_text().splitlines()) > STEPS for path in spool_folder().glob("*")))
        process.send_signal(signal.SIGKILL)
    server.start()
    make_run()
    assert (len(history(run_id, "loss")), get_run(run_id).info.status) == (STEPS, "KILLED")


def test_a_broken_artifact_store_that_is_mended_gets_the_files(project: Path) -> None:  # noqa: F811
    (project / "mlartifacts").write_text("a file where a folder should be")
    (project / "report.html").write_text("r")
    with open_run("train") as tracker:
        tracker.log_artifact(project / "report.html")
    status = get_run(tracker.run_id).info.status
    (project / "mlartifacts").unlink()
    make_run()
    assert (status, get_run(tracker.run_id).info.status) == ("RUNNING", "FINISHED")
    assert artifacts(tracker.run_id) == ["report.html"]


def test_a_file_that_the_server_refuses_does_not_stop_the_others(
    project: Path,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
) -> None:
    run_id = make_run()
    for kept in ({"metric": ["not / a * name!", 1.0, 0, 0]}, {"metric": ["loss", 1.0, 0, 0]}):
        spool = Spool({"run": {"id": run_id}})
        spool.append([kept])
        spool.release()
    make_run()
    assert history(run_id, "loss") == [(0, 1.0)]
    assert [path.suffix for path in spool_folder().iterdir()] == [".rejected"]
    assert len(warnings(capfd)) == 1


def test_a_damaged_line_is_not_sent_and_said(project: Path, capfd: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    run_id = make_run()
    for name in ("loss", "rate"):
        spool = Spool({"run": {"id": run_id}})
        spool.append([{"metric": [name, 1.5, 0, 0]}, {"tag": ["kept", name]}])
        spool.release()
        changes = {"loss": ("1.5", "2.5"), "rate": ('"run"', '"rum"')}  # of a value; of what says whose it is
        spool.path.write_text(spool.path.read_text().replace(*changes[name]))
    make_run()
    assert history(run_id, "loss") == history(run_id, "rate") == []
    assert get_run(run_id).data.tags["kept"] == "loss"
    assert [path.name for path in spool_folder().iterdir()] == [spool.path.name]
    assert ["1 damaged lines" in line for line in warnings(capfd)] == [True, False]


def test_a_parameter_that_differs_from_the_run_s_is_sent_as_a_tag(project: Path) -> None:  # noqa: F811
    with open_run("train") as tracker:
        tracker.log_params({"lr": "1"})
    send_entries(MlflowClient(tracking_uri()), str(tracker.run_id), [{"param": ["lr", "2"]}])
    data = get_run(tracker.run_id).data
    assert (data.params, data.tags["changed.lr"]) == ({"lr": "1"}, "2")


# ---- time ----


def test_a_slow_server_is_not_a_lost_one(
    server: Server,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    get = waiting.TimedClient.__getattr__

    def slow(client: waiting.TimedClient, name: str) -> object:
        method = get(client, name)
        return lambda *args, **options: (time.sleep(0.4), method(*args, **options))[1]

    monkeypatch.setattr(waiting.TimedClient, "__getattr__", slow)
    monkeypatch.setattr(waiting, "ANSWER_SECONDS", 0.5)
    run_id = make_run(metrics={"loss": 1.0})
    assert (history(run_id, "loss"), warnings(capfd)) == ([(0, 1.0)], [])


def test_a_server_that_hangs_at_the_end_holds_the_stage_for_one_deadline(
    server: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracker_module, "CLOSE_SECONDS", 1.0)
    with open_run("train") as tracker:
        server.signal(signal.SIGSTOP)
        tracker.log_metrics({"loss": 1.0}, 0)
        started = time.monotonic()
    seconds = time.monotonic() - started
    server.signal(signal.SIGCONT)
    assert seconds < 2


# ---- orphans ----


def test_the_next_process_ends_the_run_of_a_killed_one_and_sends_what_it_had_just_logged(project: Path) -> None:  # noqa: F811
    code = "import os\nfrom components.tracking.run import open_run\n"
    code += "with open_run('train') as tracker:\n"
    code += (
        "    print(tracker.run_id, flush=True)\n    tracker.log_metrics({'loss': 1.0}, 0)\n    os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    make_run()
    run_id = done.stdout.strip()
    assert (get_run(run_id).info.status, history(run_id, "loss")) == ("KILLED", [(0, 1.0)])


@pytest.mark.parametrize(
    "owner",
    [this_process(), "another-machine/pid:[1]/1/1", "by hand", ""],
    ids=["this process", "a process of another machine", "a person", "unknown"],
)
def test_a_run_whose_process_may_still_live_is_left_alone(project: Path, owner: str) -> None:  # noqa: F811
    with open_run("train") as tracker:
        pass
    client = MlflowClient(tracking_uri())
    client.set_tag(tracker.run_id, OWNER_TAG, owner)
    client.update_run(tracker.run_id, "RUNNING")
    make_run()
    assert get_run(tracker.run_id).info.status == "RUNNING"


def test_a_process_is_gone_when_its_number_is_used_again() -> None:
    mine = this_process()
    assert (is_gone(mine), is_gone(f"{mine.rpartition('/')[0]}/1")) == (False, True)
