"""The index stage over the toy data."""

from pathlib import Path

import pytest

from components.index import Inputs, Outputs, run
from irra.checkpoint import model_fingerprint, save_model, save_weights
from irra.config import IndexConfig
from irra.data.store import PreparedStore
from irra.search.folder import FolderGallery
from irra.search.gallery import check_model
from irra.utils.errors import UserError
from tests.models import architecture, small_model

CONFIG = IndexConfig(split="test", dtype="float16", test_batch_size=3, precision="fp32", device="cpu")


def save(folder: Path, **changes: object) -> Path:
    model = small_model(**changes)
    save_weights(model, folder.with_suffix(".safetensors"))
    save_model(folder, folder.with_suffix(".safetensors"), model.spec, {})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("index_stage") / "model")


def index(store: PreparedStore, model: Path, folder: Path, config: IndexConfig = CONFIG) -> Outputs:
    outputs = Outputs(folder / "index")
    run(Inputs(store.root, model), outputs, config)
    return outputs


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_gallery_is_the_split_with_its_people(store: PreparedStore, model: Path, tmp_path: Path) -> None:
    gallery = FolderGallery.open(index(store, model, tmp_path).index)
    check_model(gallery, model_fingerprint(model))
    entries = [gallery.entry(row) for row in range(gallery.size)]
    ids = store.image_ids("test")
    assert [entry.path for entry in entries] == [store.image_paths[i] for i in ids]
    assert [entry.pid for entry in entries] == store.image_pids[ids].tolist()
    captions = {gallery.caption(row) for row in range(gallery.info.captions)}
    assert captions == {store.captions[i] for i in store.caption_ids("test")}


def test_metadata_says_what_was_indexed(store: PreparedStore, model: Path, tmp_path: Path) -> None:
    outputs = Outputs(tmp_path / "index")
    metadata = run(Inputs(store.root, model), outputs, CONFIG)
    written = sum(path.stat().st_size for path in outputs.index.iterdir() if path.name != "info.json")
    captions = FolderGallery.open(outputs.index).info.captions
    assert metadata == {
        "model_fingerprint": model_fingerprint(model),
        "split": "test",
        "images": 8,
        "captions": captions,
        "dimension": 16,
        "kind": "exact",
        "dtype": "float16",
        "bytes": written,
    }


def test_the_same_inputs_give_the_same_bytes(store: PreparedStore, model: Path, tmp_path: Path) -> None:
    first, second = (index(store, model, tmp_path / name) for name in ("first", "second"))
    assert contents(first.index) == contents(second.index)


def test_a_model_for_other_images_is_refused(store: PreparedStore, tmp_path: Path) -> None:
    model = save(tmp_path / "other", architecture=architecture(image_size=(32, 32)), image_size=(32, 32))
    with pytest.raises(UserError, match=r"holds images of \(64, 32\), the model takes \(32, 32\)"):
        index(store, model, tmp_path)


def test_a_split_that_the_data_lacks_is_refused(store: PreparedStore, model: Path, tmp_path: Path) -> None:
    from tests.conftest import write_store

    other = write_store(tmp_path / "prepared", {"train": 2, "test": 1})
    with pytest.raises(UserError, match=r"no val split for index\.split: val"):
        index(other, model, tmp_path, CONFIG.model_copy(update={"split": "val"}))
