import errno
import os
import re
from pathlib import Path

import pytest
from google.protobuf import json_format, struct_pb2

from components.kubeflow import as_parameter, noted, reporting_folder, running_stage, section
from components.stage import leave_message
from components.tracking.ablations import TRAINING_TAG, tags_of_training
from components.tracking.notes import noted_run
from irra.config import load_params
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


def test_a_training_task_uses_the_run_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "given")
    with running_stage(own_run=True):
        assert os.environ["MLFLOW_RUN_ID"] == "given"


def test_the_trainings_of_an_ablation_know_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    monkeypatch.setenv("IRRA_ABLATION", "")
    with running_stage(own_run=True, ablation=True):
        assert tags_of_training() == {TRAINING_TAG: "run-1"}


def test_other_tasks_leave_a_run_of_their_own_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "given")
    with running_stage():
        assert "MLFLOW_RUN_ID" not in os.environ


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_sections_arrive_as_they_were_sent_although_kfp_keeps_floats_only(preset: Path) -> None:
    for sent in dict(load_params(preset)).values():
        struct = json_format.ParseDict(as_parameter(sent), struct_pb2.Struct())
        assert section(type(sent), json_format.MessageToDict(struct)) == sent


def test_the_note_of_a_models_run_is_what_stages_read(tmp_path: Path) -> None:
    note = noted({"model_fingerprint": "abc", "mlflow_run_id": "run"}, tmp_path)
    assert (noted_run(note, "abc"), noted_run(note, "other")) == ("run", None)


def test_a_model_without_a_run_has_no_note(tmp_path: Path) -> None:
    assert not noted({"model_fingerprint": "abc"}, tmp_path).exists()


def test_a_reporting_folder_is_gone_afterwards() -> None:
    with reporting_folder() as folder:
        Path(folder, "stats.json").write_text("{}")
    assert not folder.exists()
