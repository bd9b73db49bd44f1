"""The checks of `make repro` before DVC starts."""

from pathlib import Path

import pytest

from app.check import check
from irra.utils.errors import UserError
from tests.presets import preset_text


def params(tmp_path: Path, preset: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(preset_text(preset).replace("data/raw", str(tmp_path)))
    return path


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/CUHK-PEDES: no such folder"):
        check(params(tmp_path, "cuhk-pedes"))


def test_a_dataset_that_is_there_passes(tmp_path: Path) -> None:
    (tmp_path / "CUHK-PEDES" / "imgs").mkdir(parents=True)
    (tmp_path / "CUHK-PEDES" / "reid_raw.json").write_text("[]")
    check(params(tmp_path, "cuhk-pedes"))


def test_a_synthetic_dataset_is_not_looked_for(tmp_path: Path) -> None:
    check(params(tmp_path, "tiny"))
