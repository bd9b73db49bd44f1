"""`make preset`: the preset is written, edits are kept, unknown names are refused."""

import shutil
import warnings
from pathlib import Path

import pytest

from app.preset import main, write_preset
from irra.utils.errors import UserError
from tests.imports import ROOT
from tests.presets import preset_text


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_preset_becomes_params_yaml(here: Path) -> None:
    write_preset("cuhk-pedes")
    assert (here / "params.yaml").read_text() == preset_text("cuhk-pedes")


def test_edited_parameters_are_kept_aside(here: Path) -> None:
    edited = preset_text("synthetic").replace("lr: ", "lr:  ")
    (here / "params.yaml").write_text(edited)
    write_preset("tiny")
    assert (here / "params.yaml.bak").read_text() == edited


def test_another_preset_is_replaced_without_a_copy(here: Path) -> None:
    write_preset("synthetic")
    write_preset("tiny")
    assert not (here / "params.yaml.bak").exists()


@pytest.mark.parametrize(("name", "message"), [("cuhk", r"did you mean"), ("", "available: clip-baseline, cuhk-pedes")])
def test_unknown_presets_are_refused_with_the_known_ones(here: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_preset(name)
    assert not (here / "params.yaml").exists()


def test_params_of_a_user_become_complete_and_keep_their_values_and_first_lines(here: Path) -> None:
    whole = preset_text("tiny")
    edited = "# Mine.\n" + whole[whole.index("\nprepare") :].replace("lr: 1.0e-3", "lr: 2e-3 # higher")
    edited = edited.replace("report:\n", "").replace("  sheet_queries: 2", "").replace("  seed: 0 # of the sheet", "#")
    (here / "params.yaml").write_text(edited)
    with pytest.warns(UserWarning, match=r"report\.sheet_queries: 5"):
        main(["--complete"])
    written = (here / "params.yaml").read_text()
    assert written.startswith("# Mine.\n\n# Comments are those of")
    assert "  lr: 2.0e-3 # of the backbone, after the warm-up (default: 1.0e-5)\n" in written
    assert "report:\n  sheet_queries: 5 #" in written
    assert (here / "params.yaml.bak").read_text() == edited


def test_complete_params_stay_as_they_are(here: Path) -> None:
    write_preset("tiny")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main(["--complete"])
    assert (here / "params.yaml").read_text() == preset_text("tiny")
    assert not (here / "params.yaml.bak").exists()
