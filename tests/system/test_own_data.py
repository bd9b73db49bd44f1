"""A dataset and weights of one's own, which neither git nor DVC tracks: experiments, and clones without them."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
from PIL import Image
from safetensors.torch import save_file

from irra.backbones import read_config
from tests.projects import Project, commit, new_project
from tests.s3 import BUCKET, Server, read_files

pytest_plugins = ["tests.s3"]
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SPLITS = {"train": range(8), "val": range(8, 11), "test": range(11, 14)}


def write_dataset(folder: Path) -> None:
    """Two pictures of each of 14 people."""
    entries = []
    for split, pids in SPLITS.items():
        for pid in pids:
            for view in range(2):
                (folder / "imgs").mkdir(parents=True, exist_ok=True)
                name = f"{pid}_{view}.png"
                Image.new("RGB", (32, 96), (18 * pid, 90 * view, 40)).save(folder / "imgs" / name)
                entries.append(
                    {"id": pid, "file_path": name, "captions": [f"person {pid} from {view}"], "split": split}
                )
    (folder / "annotations.json").write_text(json.dumps(entries))


def write_weights(path: Path) -> None:
    state = open_clip.CLIP(**read_config("irra-tiny")).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that was run on data and weights of its own, by relative paths, and committed."""
    project = new_project(tmp_path_factory.mktemp("own"))
    write_dataset(project.folder / "data" / "raw" / "mine")
    write_weights(project.folder / "data" / "w.safetensors")
    project.set("prepare", dataset_name="mine", synthetic=None)
    project.set("train", pretrained="data/w.safetensors", num_epoch=1)
    project.run("make", "--silent", "repro")
    project.run("dvc", "remote", "add", "--default", "storage", str(tmp_path_factory.mktemp("remote")))
    project.run("dvc", "push")
    commit(project)
    return project


@pytest.fixture(scope="module")
def clone(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    clone = Project(tmp_path_factory.mktemp("clone") / "project")
    project.run("git", "clone", "--quiet", str(project.folder), str(clone.folder))
    clone.run("dvc", "pull")
    return clone


def test_a_clone_without_data_and_weights_has_nothing_to_compute(clone: Project) -> None:
    assert clone.stages_run("dvc", "repro") == set()
    assert clone.run("git", "status", "--short") == ""
    assert "up to date" in clone.run("make", "--silent", "repro")


def test_data_imported_from_s3_are_those_recorded_until_they_change(
    project: Project, clone: Project, s3_server: Server
) -> None:
    clone.environment |= s3_server.environment
    s3_server.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    files = read_files(project.folder / "data" / "raw" / "mine")
    s3_server.fill({f"raw/mine/{name}": content for name, content in files.items()})
    clone.run("dvc", "import-url", "--version-aware", f"s3://{BUCKET}/raw/mine", "data/raw/mine")
    assert clone.stages_run("dvc", "repro") == set()
    s3_server.fill({"raw/mine/annotations.json": files["annotations.json"].replace(b"person 0", b"somebody")})
    clone.run("dvc", "update", "data/raw/mine.dvc")
    assert clone.stages_run("dvc", "repro", "prepare") == {"prepare"}


def test_an_experiment_in_a_workspace_without_data_prepares_and_trains_on_them(project: Project) -> None:
    command = ("dvc", "exp", "run", "--temp", "-S", "prepare.image_size=[64,32]", "-S", "train.seed=5")
    assert {"prepare", "train"} <= project.stages_run(*command)


def test_other_weights_under_the_same_path_train_again(project: Project) -> None:
    write_weights(project.folder / "data" / "w.safetensors")
    assert project.stages_run("dvc", "repro") == {"train", "evaluate", "report", "index"}


def test_data_may_be_tracked_by_dvc(project: Project) -> None:
    project.run("dvc", "add", "data/raw/mine")
    commit(project)
    shutil.rmtree(project.folder / "data" / "raw" / "mine")
    project.run("dvc", "checkout")
    assert (project.folder / "data" / "raw" / "mine" / "annotations.json").is_file()
