"""Records of the dataset and of the weights, by which DVC sees that they have changed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.inputs import Record, current, read, run, write
from components.layout import DATASET_RECORD, WEIGHTS_RECORD, outside
from irra.backbones import read_config
from irra.checkpoint import save_model, save_weights
from irra.config import Params, change, load_params
from irra.layout import WEIGHTS
from irra.model import ModelSpec, build_model
from irra.utils.errors import UserError
from tests.imports import ROOT
from tests.irra.test_splits import annotate
from tests.s3 import BUCKET, Server, write_files

pytest_plugins = ["tests.s3"]

TARGET, SOURCE = Path("reports/inputs/dataset.json"), "data/raw/mine"
FILES = {"annotations.json": b"[]", "imgs/a.png": b"a", "imgs/b.png": b"b"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a dataset, which is the current folder."""
    folder = tmp_path / "project"
    write_files(folder / SOURCE, FILES)
    monkeypatch.chdir(folder)
    return folder


def recorded(source: str = SOURCE) -> Record:
    write(TARGET, current(TARGET, source))
    record = read(TARGET)
    assert record is not None
    return record


def preset(name: str, *changes: str) -> Params:
    """A preset that starts from random weights, since nothing is downloaded here."""
    return change(load_params(ROOT / "presets" / f"{name}.yaml"), ["train.pretrained=null", *changes])


def test_a_record_counts_and_hashes_the_files() -> None:
    record = recorded()
    assert (record.source, record.files) == (SOURCE, 3)
    assert len(record.sha256 or "") == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda images: (images / "a.png").write_bytes(b"x"),
        lambda images: (images / "a.png").rename(images / "c.png"),
        lambda images: (images / "a.png").unlink(),
        lambda images: (images / "c.png").write_bytes(b"c"),
    ],
    ids=["content", "name", "less", "more"],
)
def test_a_changed_dataset_has_another_hash(change: Callable[[Path], object]) -> None:
    before = recorded()
    change(Path(SOURCE, "imgs"))
    assert recorded().sha256 != before.sha256


def test_a_file_of_the_same_size_and_time_is_noticed() -> None:
    before, path = recorded(), Path(SOURCE, "imgs/a.png")
    status = path.stat()
    path.write_bytes(b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert recorded().sha256 != before.sha256


def test_a_touched_dataset_keeps_its_hash() -> None:
    before = recorded()
    os.utime(Path(SOURCE, "imgs/a.png"))
    assert recorded() == before


def test_a_true_record_is_not_written_again() -> None:
    recorded()
    before = TARGET.stat().st_ino
    recorded()
    assert TARGET.stat().st_ino == before


def test_a_damaged_record_is_replaced() -> None:
    before = recorded()
    TARGET.write_text("{")
    assert recorded() == before


@pytest.mark.parametrize("content", ["[]", '{"places": {"x": {"stamp": 3}}}', ""])
def test_a_damaged_note_of_what_was_hashed_costs_another_look(content: str) -> None:
    before = recorded()
    Path("data/inputs-seen.json").write_text(content)
    assert recorded() == before


def test_a_recorded_dataset_that_is_not_here_is_believed(capsys: pytest.CaptureFixture[str]) -> None:
    before = recorded()
    Path(SOURCE).rename("elsewhere")
    assert recorded() == before
    assert f"{SOURCE} is out of reach" in capsys.readouterr().out


def test_what_was_recorded_of_another_dataset_is_not_believed() -> None:
    recorded()
    assert current(TARGET, "data/raw/yours") is None


def test_a_dataset_that_was_never_here_is_named() -> None:
    with pytest.raises(UserError, match="data/raw/CUHK-PEDES: no such folder"):
        run(preset("cuhk-pedes"))


def test_a_dataset_with_all_splits_is_recorded() -> None:
    annotate(Path("data/raw"), "train", "val", "test", file_name="CUHK-PEDES/reid_raw.json")
    run(preset("cuhk-pedes"))
    record = read(DATASET_RECORD)
    assert record is not None
    assert record.source == "data/raw/CUHK-PEDES"


def test_a_split_that_any_section_names_and_the_data_lack_is_named() -> None:
    annotate(Path("data/raw"), "train", "val", file_name="CUHK-PEDES/reid_raw.json")
    with pytest.raises(UserError, match=r"no test split for index\.split: test;"):
        run(preset("cuhk-pedes"))
    assert read(DATASET_RECORD) is None


def test_the_preset_of_a_dataset_without_val_split_passes() -> None:
    annotate(Path("data/raw"), "train", "train", "test", file_name="ICFG-PEDES/ICFG-PEDES.json")
    run(preset("icfg-pedes"))


def test_weights_in_a_file_are_looked_at() -> None:
    Path("w.pt").write_text("<html>Sign in</html>")
    with pytest.raises(UserError, match=r"w\.pt: a web page"):
        run(preset("tiny", "train.pretrained=w.pt"))
    assert read(WEIGHTS_RECORD) is None


def test_weights_that_are_neither_file_nor_tag_are_named() -> None:
    with pytest.raises(UserError, match=r"train\.pretrained: 'opnai' is neither a file nor weights of irra-tiny"):
        run(preset("tiny", "train.pretrained=opnai"))


def test_rendered_data_and_random_weights_have_empty_records() -> None:
    run(preset("tiny"))
    assert read(DATASET_RECORD) == read(WEIGHTS_RECORD) == Record(None)


def test_a_file_of_weights_is_hashed() -> None:
    Path("w.pt").write_bytes(b"weights")
    before = recorded("w.pt")
    Path("w.pt").write_bytes(b"others!")
    after = recorded("w.pt")
    assert before.files == after.files == 1
    assert before.sha256 != after.sha256


def test_a_model_folder_to_start_from_is_hashed(project: Path) -> None:
    torch.manual_seed(0)
    model = build_model(ModelSpec(read_config("irra-tiny"), (64, 32), 16, 16, 0.02, None, None))
    save_weights(model, project / "best.safetensors")
    save_model(project / "start", project / "best.safetensors", model.spec, {})
    run(preset("tiny", "train.init_from=start"))
    record = read(WEIGHTS_RECORD)
    assert record is not None
    assert (record.source, record.files) == ("start", 2)
    (project / "start" / WEIGHTS).write_bytes(b"others")
    with pytest.raises(UserError, match=r"train\.init_from: start/weights\.safetensors: damaged"):
        run(preset("tiny", "train.init_from=start"))


@pytest.mark.parametrize("name", ["model", "./model/", "model/weights.safetensors"])
def test_the_model_that_training_replaces_is_no_start(name: str) -> None:
    with pytest.raises(UserError, match=r"is removed when a training starts; copy it, and name the copy"):
        run(preset("tiny", f"train.init_from={name}"))


def test_a_temporary_workspace_finds_the_dataset_of_its_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = recorded()
    workspace = project / ".dvc" / "tmp" / "exps" / "tmp1"
    workspace.mkdir(parents=True)
    monkeypatch.chdir(workspace)
    assert recorded() == before
    assert outside(SOURCE) == str(project / SOURCE)
    assert not (workspace / "data").exists()  # what was hashed is noted once, in the project


def test_what_git_brings_to_a_temporary_workspace_is_used_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = project / ".dvc" / "tmp" / "exps" / "tmp1"
    write_files(workspace / SOURCE, FILES)
    monkeypatch.chdir(workspace)
    assert outside(SOURCE) == SOURCE


def test_a_tag_stays_a_tag() -> None:
    assert outside("openai") == "openai"


@pytest.mark.xdist_group("storage")
def test_a_dataset_in_s3_is_recorded_without_being_read(s3: Server) -> None:
    s3.fill({f"raw/mine/{name}": content for name, content in FILES.items()})
    before = recorded(f"s3://{BUCKET}/raw/mine")
    s3.fill({"raw/mine/imgs/a.png": b"x"})
    after = recorded(f"s3://{BUCKET}/raw/mine")
    assert before.files == after.files == 3
    assert before.sha256 != after.sha256


@pytest.mark.xdist_group("storage")
def test_a_recorded_dataset_in_s3_that_cannot_be_reached_is_believed(
    s3: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.fill({f"raw/mine/{name}": content for name, content in FILES.items()})
    before = recorded(f"s3://{BUCKET}/raw/mine")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert recorded(f"s3://{BUCKET}/raw/mine") == before
    assert "out of reach" in capsys.readouterr().out


def test_the_record_is_json_for_people(project: Path) -> None:
    recorded()
    assert json.loads(TARGET.read_text())["files"] == 3
