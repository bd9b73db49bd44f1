"""irra without the tools of the pipeline: the script of docs/library.md, with only the core dependencies installed."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.imports import ROOT

LINES = 15


def script() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(), re.DOTALL)
    return found


def with_what_they_need(requirements: list[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions that requirements ask for, with all that those ask for."""
    found: dict[str, metadata.Distribution] = {}
    todo = [Requirement(text) for text in requirements]
    while todo:
        requirement = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name not in found:
            found[requirement.name] = metadata.distribution(requirement.name)
            todo += [Requirement(text) for text in found[requirement.name].requires or []]
    return found


def link_packages(distributions: list[metadata.Distribution], folder: Path) -> None:
    """An environment of these distributions alone: links to their folders and files."""
    folder.mkdir()
    for distribution in distributions:
        for file in distribution.files or []:
            top = file.parts[0]
            if top != ".." and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))


def test_the_script_fits_on_a_hand() -> None:
    assert len([line for line in script().splitlines() if line]) <= LINES


def test_data_training_evaluation_and_search_need_the_core_dependencies_alone(tmp_path: Path) -> None:
    core = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    link_packages(list(with_what_they_need(core).values()), tmp_path / "packages")
    for name in ("irra", "presets"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "script.py").write_text(script())
    # -S: without the packages of this environment
    command = [sys.executable, "-S", "script.py"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{tmp_path / 'packages'}", "OMP_NUM_THREADS": "1"}
    absent = [
        *command[:2],
        "-c",
        "import importlib.util as u; print([n for n in ('mlflow', 'dvc', 'boto3') if u.find_spec(n)])",
    ]
    assert subprocess.run(absent, env=environment, capture_output=True, text=True).stdout == "[]\n"
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'R1':" in done.stdout
    assert "Hit(rank=1" in done.stdout
