"""The check in `make setup`, on a small made-up environment."""

from pathlib import Path

import pytest

from tools.check_environment import repairs

PYPROJECT = '[project]\nname = "own-project"\n'


def install(site: Path, name: str, *files: str) -> None:
    record = site / f"{name}-1.0.dist-info" / "RECORD"
    record.parent.mkdir(parents=True)
    record.write_text("".join(f"{file},sha256=abc,3\n" for file in (*files, f"{record.parent.name}/RECORD")))
    for file in files:
        path = (site / file.strip('"')).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    site = tmp_path / "venv" / "lib" / "site-packages"
    install(site, "own_project", "own.pth", "../../bin/own")
    install(site, "Some.Package", "some/__init__.py", "some/inner/module.py", '"some/a, b.txt"')
    install(site, "other", "other.py", "__pycache__/other.pyc")
    return site


def test_a_complete_environment_needs_no_repair(site: Path, tmp_path: Path) -> None:
    assert repairs(site, tmp_path) == []


@pytest.mark.parametrize("file", ["some/__init__.py", "some/inner/module.py", "some/a, b.txt"])
def test_a_package_that_lost_a_file_is_reinstalled(site: Path, tmp_path: Path, file: str) -> None:
    (site / file).unlink()
    assert repairs(site, tmp_path) == ["--reinstall-package=some-package"]


def test_bytecode_may_be_missing(site: Path, tmp_path: Path) -> None:
    (site / "__pycache__" / "other.pyc").unlink()
    assert repairs(site, tmp_path) == []


@pytest.mark.parametrize("file", ["../../bin/own", "own.pth", "own_project-1.0.dist-info/RECORD"])
def test_the_project_itself_is_installed_from_its_folder(site: Path, tmp_path: Path, file: str) -> None:
    (site / file).unlink()
    assert repairs(site, tmp_path) == [f"--editable={tmp_path}"]


def test_a_package_that_vanished_completely_is_left_to_uv(site: Path, tmp_path: Path) -> None:
    (site / "other.py").unlink()
    (site / "other-1.0.dist-info" / "RECORD").unlink()
    assert repairs(site, tmp_path) == []
