"""`make preset`: the preset is written, edits are kept, unknown names are refused."""

import shutil
from pathlib import Path

import pytest

from app.preset import write_preset
from irra.utils.errors import UserError
from tests.imports import ROOT


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_preset_becomes_params_yaml(here: Path) -> None:
    write_preset("cuhk-pedes")
    assert (here / "params.yaml").read_bytes() == (here / "presets" / "cuhk-pedes.yaml").read_bytes()


def test_edited_parameters_are_kept_aside(here: Path) -> None:
    edited = (here / "presets" / "synthetic.yaml").read_text().replace("lr: ", "lr:  ")
    (here / "params.yaml").write_text(edited)
    write_preset("tiny")
    assert (here / "params.yaml.bak").read_text() == edited


def test_another_preset_is_replaced_without_a_copy(here: Path) -> None:
    write_preset("synthetic")
    write_preset("tiny")
    assert not (here / "params.yaml.bak").exists()


@pytest.mark.parametrize(("name", "message"), [("cuhk", r"did you mean"), ("", "there are clip-baseline, cuhk-pedes")])
def test_unknown_presets_are_refused_with_the_known_ones(here: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_preset(name)
    assert not (here / "params.yaml").exists()
