"""The checks of `make repro` before DVC starts."""

from pathlib import Path

import pytest
import yaml

from app.check import check, check_repository
from irra.utils.errors import UserError
from tests.irra.test_splits import annotate
from tests.presets import preset_text


def params(tmp_path: Path, preset: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(preset_text(preset).replace("data/raw", str(tmp_path)))
    return path


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/CUHK-PEDES: no such folder"):
        check(params(tmp_path, "cuhk-pedes"))


def test_a_dataset_that_is_there_passes(tmp_path: Path) -> None:
    annotate(tmp_path, "train", "val", "test", file_name="CUHK-PEDES/reid_raw.json")
    check(params(tmp_path, "cuhk-pedes"))


def test_a_split_that_any_section_names_and_the_data_lack_is_named(tmp_path: Path) -> None:
    annotate(tmp_path, "train", "val", file_name="CUHK-PEDES/reid_raw.json")
    with pytest.raises(UserError, match=r"no test split for index\.split: test;"):
        check(params(tmp_path, "cuhk-pedes"))


def test_the_preset_of_a_dataset_without_val_split_passes(tmp_path: Path) -> None:
    annotate(tmp_path, "train", "train", "test", file_name="ICFG-PEDES/ICFG-PEDES.json")
    check(params(tmp_path, "icfg-pedes"))


def test_a_dataset_in_s3_is_left_to_the_training(tmp_path: Path) -> None:
    path = params(tmp_path, "cuhk-pedes")
    path.write_text(path.read_text().replace(str(tmp_path), "s3://bucket/raw"))
    check(path)


def test_weights_in_a_file_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_text("<html>Sign in</html>")
    path = params(tmp_path, "tiny")
    data = yaml.safe_load(path.read_text())
    data["train"]["pretrained"] = str(tmp_path / "w.pt")
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(UserError, match=r"w\.pt: a web page"):
        check(path)


def test_a_synthetic_dataset_is_not_looked_for(tmp_path: Path) -> None:
    check(params(tmp_path, "tiny"))


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
