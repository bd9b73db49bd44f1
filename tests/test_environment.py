"""What `make setup` installs, and its check of what is installed, on a small made-up environment."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.imports import ROOT
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
def test_the_project_itself_is_repaired_even_without_a_record(site: Path, tmp_path: Path, file: str) -> None:
    (site / file).unlink()
    assert repairs(site, tmp_path) == ["--reinstall-package=own-project"]


def test_a_package_that_vanished_completely_is_left_to_uv(site: Path, tmp_path: Path) -> None:
    (site / "other.py").unlink()
    (site / "other-1.0.dist-info" / "RECORD").unlink()
    assert repairs(site, tmp_path) == []


# ---- the lock ----

LOCK = (ROOT / "requirements.txt").read_text()
ENTRIES = re.findall(r"^(\S+?)==(\S+)(.*(?:\n .*)*)", LOCK, re.MULTILINE)


def test_every_line_of_the_lock_is_a_version_or_a_hash() -> None:
    assert len(ENTRIES) > 200
    assert [name for name, _, rest in ENTRIES if not re.search(r" --hash=sha256:[0-9a-f]{64}", rest)] == []
    line_of_lock = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?$|\S+==\S+ ")
    assert [line for line in LOCK.splitlines() if not line_of_lock.match(line)] == []


def test_the_lock_pins_versions_that_fit_all_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    pinned = {name: version for name, version, _ in ENTRIES}
    asked = [Requirement(text) for group in groups for text in group]
    assert {canonicalize_name(one.name) for one in asked} <= set(pinned)
    assert [str(one) for one in asked if not one.specifier.contains(pinned[canonicalize_name(one.name)])] == []


def test_only_builds_of_torch_from_another_index_go_unchecked() -> None:
    rule = r"sed -E '(.+torch.+?)'"
    (made,) = re.findall(rule, (ROOT / "Makefile").read_text().replace("$$", "$"))
    (built,) = re.findall(rule, (ROOT / "Dockerfile").read_text())
    assert made == built
    lock = subprocess.run(["sed", "-E", made], input=LOCK, capture_output=True, text=True, check=True).stdout
    unchecked = re.findall(r"^(\S+?)==.*[^\\]$(?!\n )", lock, re.MULTILINE)
    assert unchecked == ["torch", "torchvision", "triton"]
    assert lock.count("==") == LOCK.count("==")
