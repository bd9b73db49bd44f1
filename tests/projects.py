"""Throw-away copies of this project, in which tests run the commands of a user."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.imports import ROOT
from tests.presets import preset_text

BIN = Path(sys.executable).parent


class Project:
    """A copy of the project with the tiny preset, in its own git repository, and commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",  # the same number of threads gives the same weights
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        make = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # of `make test-system`, which a make in the copy would obey
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", *make):
            self.environment.pop(name, None)

    def run(self, *command: str) -> str:
        """Run a command, which must succeed; return standard output and error."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}"
        return done.stdout

    def stages_run(self, *command: str) -> set[str]:
        """Run a DVC command and return the stages that it executed, except `inputs`, which runs each time."""
        lines = self.run(*command).splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("Running stage '")} - {"inputs"}

    def set(self, section: str, **values: object) -> None:
        """Change parameters of one section."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params[section] |= values
        path.write_text(yaml.safe_dump(params))


def copy_project(folder: Path) -> None:
    """Copy all files that git tracks or would add; set the tiny preset and drop earlier results."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    (folder / "params.yaml").write_text(preset_text("tiny"))
    (folder / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(folder / "reports", ignore_errors=True)


def new_project(folder: Path) -> Project:
    """Copy the project into its own git repository and commit it."""
    copy_project(folder)
    project = Project(folder)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    for key, value in (("user.name", "tester"), ("user.email", "tester@example.invalid")):
        project.run("git", "config", key, value)
    commit(project)
    return project


def commit(project: Project) -> None:
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "state")
