"""The prepare stage on a dataset in S3: the same result as from a folder, and nothing fetched twice."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from components import prepare
from components.evaluate import prepare_others
from components.s3.transfer import upload
from irra.config import Params, PrepareConfig
from irra.data.store import PreparedStore
from irra.distributed import ALONE
from irra.utils.errors import UserError
from tests.cli import write_model
from tests.s3 import BUCKET, Server, write_files

pytest_plugins = ["tests.s3"]
pytestmark = pytest.mark.xdist_group("storage")

NAME = "toy"


def picture(red: int) -> bytes:
    """A small picture in one colour, as a PNG."""
    file = io.BytesIO()
    Image.new("RGB", (16, 48), (red, 40, 90)).save(file, "PNG")
    return file.getvalue()


def dataset() -> dict[str, bytes]:
    """Three people, one for each split."""
    files, entries = {}, []
    for pid, split in enumerate(("train", "val", "test")):
        files[f"imgs/{pid}.png"] = picture(80 * pid)
        entries.append({"id": pid, "file_path": f"{pid}.png", "captions": [f"person {pid}"], "split": split})
    return files | {"annotations.json": json.dumps(entries).encode()}


@pytest.fixture
def config(params: Params) -> PrepareConfig:
    changes = {"dataset_name": NAME, "root_dir": f"s3://{BUCKET}/raw", "image_size": [48, 16], "synthetic": None}
    return params.prepare.model_copy(update=changes)


@pytest.fixture
def outputs(tmp_path: Path) -> prepare.Outputs:
    return prepare.Outputs(tmp_path / "prepared", tmp_path / "downloads")


def test_a_dataset_in_s3_is_prepared_as_one_in_a_folder(
    s3: Server, config: PrepareConfig, outputs: prepare.Outputs, tmp_path: Path
) -> None:
    write_files(tmp_path / "raw" / NAME, dataset())
    upload(tmp_path / "raw" / NAME, f"s3://{BUCKET}/raw/{NAME}")
    prepare.run(prepare.Inputs(), outputs, config)
    here = prepare.Outputs(tmp_path / "here", tmp_path / "none")
    prepare.run(prepare.Inputs(), here, config.model_copy(update={"root_dir": str(tmp_path / "raw")}))
    assert PreparedStore.open(outputs.prepared).fingerprint == PreparedStore.open(here.prepared).fingerprint
    assert not here.downloads.exists()


def test_what_was_fetched_is_kept_and_follows_what_is_there(
    s3: Server, config: PrepareConfig, outputs: prepare.Outputs
) -> None:
    files = dataset()
    s3.fill({f"raw/{NAME}/{name}": content for name, content in files.items()})
    s3.fill({f"raw/{NAME}/CUHK-PEDES.json": b"another annotation file"})
    prepare.fetch(config, outputs.downloads)
    s3.client.delete_object(Bucket=BUCKET, Key=f"raw/{NAME}/CUHK-PEDES.json")
    s3.requests.clear()
    root = Path(prepare.fetch(config, outputs.downloads).root_dir)
    assert s3.asked("GET") == []
    assert sorted(path.name for path in (root / NAME).iterdir()) == ["annotations.json", "imgs"]


def test_a_dataset_that_is_not_there_is_named_and_leaves_the_previous_output(
    s3: Server, config: PrepareConfig, outputs: prepare.Outputs
) -> None:
    write_files(outputs.prepared, {"stats.json": b"{}"})
    with pytest.raises(UserError, match=f"s3://{BUCKET}/raw/{NAME}: nothing is there"):
        prepare.run(prepare.Inputs(), outputs, config)
    assert (outputs.prepared / "stats.json").read_bytes() == b"{}"


@pytest.mark.parametrize("change", [{"root_dir": f"s3://{BUCKET}/../raw"}, {"dataset_name": "../toy"}])
def test_a_root_dir_that_leads_out_of_the_downloads_is_refused(
    config: PrepareConfig, outputs: prepare.Outputs, change: dict[str, str]
) -> None:
    with pytest.raises(UserError, match="not an address in S3"):
        prepare.fetch(config.model_copy(update=change), outputs.downloads)


def test_another_test_set_in_s3_is_fetched(s3: Server, tmp_path: Path) -> None:
    s3.fill({f"others/{NAME}/{name}": content for name, content in dataset().items()})
    model, address = write_model(tmp_path), f"s3://{BUCKET}/others/{NAME}"
    found = prepare_others(model, tmp_path / "also", [address], ALONE)[NAME]
    assert found.prepared == tmp_path / "also" / f"{NAME}-64x32" / "prepared"
    assert PreparedStore.open(found.prepared).captions == ["person 2"]
