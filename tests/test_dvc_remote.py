"""DVC with S3, with the commands of a user: a dataset in S3 is a dependency; results are pushed and pulled."""

from pathlib import Path

import pytest
import yaml

from tests.components.test_prepare_from_s3 import NAME, dataset, picture
from tests.projects import Project, commit, new_project
from tests.s3 import BUCKET, Server, read_files

pytest_plugins = ["tests.s3"]
pytestmark = [pytest.mark.system, pytest.mark.xdist_group("storage")]


def keep_first_stages(project: Project) -> None:
    """Keep only the stages inputs and prepare, with the dataset in S3."""
    graph, path = project.folder / "dvc.yaml", project.folder / "params.yaml"
    stages = yaml.safe_load(graph.read_text())["stages"]
    graph.write_text(yaml.safe_dump({"stages": {name: stages[name] for name in ("inputs", "prepare")}}))
    params = yaml.safe_load(path.read_text())
    params["prepare"] |= {"dataset_name": NAME, "root_dir": f"s3://{BUCKET}/raw", "synthetic": None}
    path.write_text(yaml.safe_dump(params))


@pytest.fixture(scope="module")
def origin(s3_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Run a project on a dataset in S3, commit it and push the results."""
    s3_server.fill({f"raw/{NAME}/{name}": content for name, content in dataset().items()})
    project = new_project(tmp_path_factory.mktemp("origin"))
    project.environment |= s3_server.environment
    keep_first_stages(project)
    assert project.stages_run("dvc", "repro") == {"prepare"}
    project.run("dvc", "remote", "add", "--default", "storage", f"s3://{BUCKET}/dvc")
    commit(project)
    project.run("dvc", "push", "--run-cache")
    return project


@pytest.fixture(scope="module")
def clone(origin: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("clone") / "project")
    project.environment = origin.environment
    origin.run("git", "clone", "--quiet", str(origin.folder), str(project.folder))
    project.run("dvc", "pull", "--run-cache")
    return project


def test_a_clone_pulls_what_was_pushed_and_has_nothing_to_run(origin: Project, clone: Project) -> None:
    prepared = Path("data") / "prepared"
    assert read_files(clone.folder / prepared) == read_files(origin.folder / prepared)
    assert clone.stages_run("dvc", "repro") == set()


def test_a_changed_object_is_noticed(clone: Project, s3_server: Server) -> None:
    s3_server.fill({f"raw/{NAME}/imgs/0.png": picture(200)})
    assert clone.stages_run("dvc", "repro") == {"prepare"}
