import os
from pathlib import Path

import pytest
from google.protobuf import json_format, struct_pb2

from components.kubeflow import as_parameter, noted, reporting_folder, running_stage, section
from components.tracking.ablations import TRAINING_TAG, tags_of_training
from components.tracking.notes import noted_run
from irra.config import load_params
from irra.utils.errors import UserError
from tests.imports import ROOT


def test_a_users_mistake_ends_a_task_with_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, running_stage():
        raise UserError("raw: no such folder")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: raw: no such folder\n"


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
