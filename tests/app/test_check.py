"""The checks of `make repro` before DVC starts."""

from pathlib import Path

import pytest
import yaml

from app.check import check, check_repository
from irra.utils.errors import UserError
from tests.presets import preset_text


def params(tmp_path: Path, preset: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(preset_text(preset).replace("data/raw", str(tmp_path)))
    return path


def test_a_section_that_dvc_would_miss_in_the_end_is_named_at_the_start(tmp_path: Path) -> None:
    path = params(tmp_path, "tiny")
    data = yaml.safe_load(path.read_text())
    del data["report"]
    path.write_text(yaml.safe_dump(data))
    with (
        pytest.warns(UserWarning, match=r"report\.sheet_queries: 5"),
        pytest.raises(UserError, match="no section report; `make params` writes it"),
    ):
        check(path)


def test_a_download_without_git_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="git init"):
        check_repository(tmp_path)


def test_a_project_that_does_without_git_passes(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
    check_repository(tmp_path)
