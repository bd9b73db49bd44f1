"""The results of the whole pipeline in a DVC remote in S3: `dvc push`, then `dvc pull` in another clone."""

from pathlib import Path

import pytest

from tests.projects import Project, commit
from tests.s3 import BUCKET, Server, read_files

pytest_plugins = ["tests.s3"]
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def clone(project: Project, s3_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Push the results, and pull them in a second clone."""
    project.environment |= s3_server.environment
    project.run("dvc", "remote", "add", "--default", "storage", f"s3://{BUCKET}/dvc")
    commit(project)
    project.run("dvc", "push")
    second = Project(tmp_path_factory.mktemp("clone") / "project")
    second.environment = project.environment
    project.run("git", "clone", "--quiet", str(project.folder), str(second.folder))
    second.run("dvc", "pull")
    return second


@pytest.mark.parametrize("name", ["data/prepared", "data/tokens", "data/index", "model"])
def test_a_clone_pulls_every_result(project: Project, clone: Project, name: str) -> None:
    assert read_files(clone.folder / Path(name)) == read_files(project.folder / Path(name))


def test_a_clone_has_nothing_to_run(clone: Project) -> None:
    assert clone.stages_run("dvc", "repro") == set()


def test_a_tagged_model_is_got_without_a_clone(project: Project, clone: Project, tmp_path: Path) -> None:
    project.run("gto", "register", "irra", "--version", "v1.0.0")
    project.run("gto", "assign", "irra", "--version", "v1.0.0", "--stage", "prod")
    got = ("dvc", "artifacts", "get", str(project.folder), "irra")
    project.run(*got, "--rev", "v1.0.0", "--out", str(tmp_path / "version"))
    project.run(*got, "--stage", "prod", "--out", str(tmp_path / "stage"))
    model = read_files(project.folder / "model")
    assert read_files(tmp_path / "version") == read_files(tmp_path / "stage") == model
