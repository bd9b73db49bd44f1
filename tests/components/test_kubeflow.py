import errno
import os
import re
from pathlib import Path

import pytest

from components.kubeflow import reporting_folder, running_stage
from components.stage import leave_message
from irra.utils.errors import TemporaryError, UserError
from tests.imports import ROOT


def test_a_users_mistake_ends_a_task_with_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, running_stage():
        raise UserError("raw: no such folder")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: raw: no such folder\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("raw: no such folder"), "error: raw: no such folder"),
        (TemporaryError("S3 is away"), "temporary error: S3 is away"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/model"), "temporary error: /tmp/model: No space left"),
        (UserError("é" * 5000), "error: " + "é" * 900),
    ],
    ids=lambda value: type(value).__name__,
)
def test_kubernetes_gets_the_message_and_whether_another_attempt_can_help(
    tmp_path: Path, error: Exception, message: str
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    with pytest.raises(SystemExit), running_stage(termination_log=log):
        raise error
    left = log.read_bytes()
    assert left.decode(errors="ignore").startswith(message)
    assert len(left) <= 2000


@pytest.mark.parametrize(("error", "is_repeated"), [(UserError("x"), False), (TemporaryError("x"), True)])
def test_the_expression_of_the_docs_repeats_what_can_pass(tmp_path: Path, error: UserError, is_repeated: bool) -> None:
    docs = (ROOT / "docs" / "kubeflow.md").read_text(encoding="utf-8")
    (sought,) = re.findall(r'!\(lastRetry\.message contains "(.+?)"\)', docs)
    (log := tmp_path / "termination-log").touch()
    leave_message(error, log)
    message_of_the_node = f"main: Error (exit code 1): {log.read_text()}"  # by Argo's inferFailedReason
    assert (sought not in message_of_the_node) is is_repeated


def test_a_bug_leaves_kubernetes_no_message(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    with pytest.raises(ZeroDivisionError), running_stage(termination_log=log):
        _ = 1 / 0
    assert not log.read_bytes()


def test_without_kubernetes_a_message_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), running_stage(termination_log=tmp_path / "termination-log"):
        raise UserError("raw: no such folder")
    assert not list(tmp_path.iterdir())


def test_our_own_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), running_stage():
        _ = 1 / 0


def test_a_training_task_tells_mlflow_the_kubeflow_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "")
    monkeypatch.setenv("MLFLOW_RUN_ID", "given")
    with running_stage("run-1"):
        assert (os.environ["KFP_RUN_ID"], os.environ["MLFLOW_RUN_ID"]) == ("run-1", "given")


def test_other_tasks_leave_a_run_of_their_own_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "given")
    with running_stage():
        assert "MLFLOW_RUN_ID" not in os.environ


def test_a_reporting_folder_is_gone_afterwards() -> None:
    with reporting_folder() as folder:
        Path(folder, "stats.json").write_text("{}")
    assert not folder.exists()
