import os
from pathlib import Path

import pytest

from components.kubeflow import reporting_folder, running_stage
from irra.utils.errors import UserError


def test_a_users_mistake_ends_a_task_with_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, running_stage():
        raise UserError("raw: no such folder")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: raw: no such folder\n"


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
