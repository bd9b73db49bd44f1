import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from irra.config import PrepareConfig
from irra.data import images as decoding
from irra.data.datasets import Record, warn_of_other_sizes
from irra.data.images import load_image
from irra.data.preparation import _found_elsewhere, hold_out_val, prepare, prepare_dataset
from irra.data.store import PreparedStore
from irra.utils.cores import available_cores
from irra.utils.errors import UserError
from irra.utils.records import sealed
from tests.imports import ROOT

SIZE = (16, 8)
SPLIT_OF_PID = ["test", "train", "val", "train", "train", "train", "test", "train"]  # as jumbled as real files
IMAGES = 5


def config(root: Path, **changes: Any) -> PrepareConfig:
    values = {"dataset_name": "mine", "root_dir": str(root), "image_size": list(SIZE), "on_bad_image": "error"}
    return PrepareConfig.model_validate({**values, "val_share": 0.0, **changes})


def make_dataset(root: Path) -> Path:
    """Eight identities of five images each, as PNG files of random colours."""
    rng = np.random.default_rng(0)
    entries = []
    for pid, split in enumerate(SPLIT_OF_PID):
        for image in range(IMAGES):
            path = root / "mine" / "imgs" / str(pid) / f"{image}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (30, 12, 3), dtype=np.uint8)).save(path)
            captions = [f"Person {pid}, picture {image}.", f"Again {pid}."][: 1 + image % 2]
            entries.append({"id": pid, "file_path": f"{pid}/{image}.png", "captions": captions, "split": split})
    (root / "mine" / "annotations.json").write_text(json.dumps(entries))
    return root / "mine"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "raw")


def test_every_image_comes_back_with_its_identity_captions_and_pixels(tmp_path: Path, source: Path) -> None:
    prepare(config(tmp_path), source, tmp_path / "out")
    store = PreparedStore.open(tmp_path / "out")
    captions: dict[int, list[str]] = {}
    for image_id, text in zip(store.caption_image_ids.tolist(), store.captions, strict=True):
        captions.setdefault(image_id, []).append(text)
    entries = {entry["file_path"]: entry for entry in json.loads((source / "annotations.json").read_text())}
    assert sorted(store.image_paths) == sorted(entries)
    for image_id, path in enumerate(store.image_paths):
        assert store.image_pids[image_id] == entries[path]["id"]
        assert captions[image_id] == entries[path]["captions"]
        assert image_id in store.image_ids(entries[path]["split"])
        assert np.array_equal(store.pixels(np.array([image_id]))[0], load_image(source / "imgs" / path, SIZE))


def test_rows_are_ordered_by_split_and_then_as_annotated(tmp_path: Path, source: Path) -> None:
    prepare(config(tmp_path), source, tmp_path / "out")
    pids = PreparedStore.open(tmp_path / "out").image_pids.tolist()
    assert pids == [pid for pid in (1, 3, 4, 5, 7, 2, 0, 6) for _ in range(IMAGES)]


def test_the_stats_are_those_of_the_file_and_count_every_split(tmp_path: Path, source: Path) -> None:
    stats = prepare(config(tmp_path), source, tmp_path / "out")
    assert sealed(stats) == json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["dataset_name"] == "mine"
    assert stats["image_size"] == list(SIZE)
    assert stats["skipped"] == []
    assert stats["splits"] == {
        "train": {"identities": 5, "images": 25, "captions": 35},
        "val": {"identities": 1, "images": 5, "captions": 7},
        "test": {"identities": 2, "images": 10, "captions": 14},
    }


def test_the_store_is_byte_for_byte_the_same_whatever_the_number_of_workers(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "IMAGES_PER_WORKER", 8)
    for workers in (1, 2):
        prepare(config(tmp_path), source, tmp_path / str(workers), workers=workers)
    files = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "2").iterdir())
    for name in files:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_bad_image_of_the_store_is_named(
    tmp_path: Path, source: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "IMAGES_PER_WORKER", 8)
    for path in ("1/4.png", "7/0.png", "0/0.png"):  # in the store's order, which puts pid 0 last
        (source / "imgs" / path).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"imgs/1/4\.png: not a .*; repair it, or set prepare.on_bad_image: skip"):
        prepare(config(tmp_path), source, tmp_path / "out", workers=workers)
    assert not (tmp_path / "out").exists()


def test_absent_images_are_counted_before_anything_is_decoded(tmp_path: Path, source: Path) -> None:
    (source / "imgs" / "1" / "0.png").write_bytes(b"no image")
    for image in range(4):
        (source / "imgs" / "4" / f"{image}.png").unlink()
    with pytest.raises(UserError, match=r"4 of the 40 images .* do not exist: .*4/0\.png.* and 1 more"):
        prepare(config(tmp_path), source, tmp_path / "out")


def test_skipping_drops_bad_images_with_their_captions_and_lists_them(tmp_path: Path, source: Path) -> None:
    (source / "imgs" / "1" / "1.png").write_bytes(b"")
    (source / "imgs" / "6" / "0.png").unlink()
    with pytest.warns(UserWarning, match="2 images skipped: 1/1.png"):
        stats = prepare(config(tmp_path, on_bad_image="skip"), source, tmp_path / "out")
    assert stats["skipped"] == [
        {"path": "1/1.png", "reason": "an empty file"},
        {"path": "6/0.png", "reason": "no such file"},
    ]
    assert stats["splits"]["train"] == {"identities": 5, "images": 24, "captions": 33}
    store = PreparedStore.open(tmp_path / "out")
    assert "1/1.png" not in store.image_paths
    assert "Person 1, picture 1." not in store.captions


def test_a_training_identity_without_images_leaves_no_gap_in_the_labels(tmp_path: Path, source: Path) -> None:
    for path in (source / "imgs" / "3").iterdir():
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="5 images skipped"):
        prepare(config(tmp_path, on_bad_image="skip"), source, tmp_path / "out")
    store = PreparedStore.open(tmp_path / "out")
    labels = dict(zip(store.image_pids.tolist(), store.image_labels.tolist(), strict=True))
    assert labels == {1: 0, 4: 1, 5: 2, 7: 3, 2: -1, 0: -1, 6: -1}


def test_a_split_without_any_usable_image_is_refused(tmp_path: Path, source: Path) -> None:
    for path in (source / "imgs" / "2").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no usable image is left in split 'val': 5 images skipped: 2/0\.png"):
        prepare(config(tmp_path, on_bad_image="skip"), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_script_without_a_guard_is_told_that_it_needs_one(tmp_path: Path, source: Path) -> None:
    """Its decoding processes import it anew, and so start decoding themselves, which Python refuses."""
    (tmp_path / "script.py").write_text(
        "import sys\nfrom pathlib import Path\n"
        "from irra.config import PrepareConfig\nfrom irra.data import images, preparation\n"
        "images.IMAGES_PER_WORKER, preparation.available_cores = 8, lambda: 2\n"
        f"preparation.prepare_dataset(PrepareConfig(dataset_name='mine', root_dir={str(source.parent)!r}), "
        "Path(sys.argv[1]))\n"
    )
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'must call this under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_error_half_way_leaves_the_previous_store_and_nothing_beside_it(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "data" / "prepared"
    prepare(config(tmp_path), source, target)
    before = contents(target)
    (source / "imgs" / "6" / "4.png").write_bytes(b"no image")
    with pytest.raises(UserError):
        prepare(config(tmp_path), source, target)
    assert contents(target) == before
    assert list(target.parent.iterdir()) == [target]


def test_an_earlier_store_is_replaced(tmp_path: Path, source: Path) -> None:
    prepare(config(tmp_path), source, tmp_path / "out")
    prepare(config(tmp_path, image_size=[8, 8]), source, tmp_path / "out")
    assert PreparedStore.open(tmp_path / "out").image_size == (8, 8)


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path, source: Path) -> None:
    before = contents(source.parent / "mine" / "imgs" / "0")
    with pytest.raises(UserError, match="exists and is not a prepared dataset"):
        prepare(config(tmp_path), source, source)
    assert contents(source / "imgs" / "0") == before


def test_a_dataset_is_found_under_its_root_and_name(tmp_path: Path, source: Path) -> None:
    stats = prepare_dataset(config(source.parent), tmp_path / "out")
    assert stats["splits"]["train"]["images"] == 25


def test_the_synthetic_dataset_is_rendered_prepared_and_cleared_away(tmp_path: Path) -> None:
    people = {
        "train_ids": 3,
        "val_ids": 1,
        "test_ids": 2,
        "images_per_id": 2,
        "captions_per_image": 2,
        "seed": 0,
        "wrong_captions": 0.0,
    }
    stats = prepare_dataset(config(tmp_path, dataset_name="synthetic", synthetic=people), tmp_path / "out" / "prepared")
    assert stats["splits"] == {
        "train": {"identities": 3, "images": 6, "captions": 12},
        "val": {"identities": 1, "images": 2, "captions": 4},
        "test": {"identities": 2, "images": 4, "captions": 8},
    }
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "prepared"]


def test_a_sound_dataset_is_prepared_without_a_warning(tmp_path: Path, source: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(config(tmp_path), source, tmp_path / "out")


def test_a_share_of_the_training_identities_becomes_val_where_there_is_none(tmp_path: Path, source: Path) -> None:
    entries = [entry for entry in json.loads((source / "annotations.json").read_text()) if entry["split"] != "val"]
    (source / "annotations.json").write_text(json.dumps(entries))
    stats = prepare(config(tmp_path, val_share=0.4), source, tmp_path / "out")
    assert {split: size["identities"] for split, size in stats["splits"].items()} == {"train": 3, "val": 2, "test": 2}


RECORDS = [
    Record(pid, f"{pid}_{image}", ("x",), "train" if pid < 50 else "test") for pid in range(60) for image in "ab"
]


def held_out(records: list[Record]) -> set[int]:
    return {record.pid for record in records if record.split == "val"}


def test_holding_out_moves_whole_identities_and_nothing_else() -> None:
    result = hold_out_val(RECORDS, 0.1)
    chosen = held_out(result)
    assert len(chosen) == 5
    assert result == [
        Record(record.pid, record.path, record.captions, "val" if record.pid in chosen else record.split)
        for record in RECORDS
    ]
    assert all(pid < 50 for pid in chosen)


def test_holding_out_does_not_depend_on_the_order_of_the_records() -> None:
    assert held_out(hold_out_val(RECORDS[::-1], 0.1)) == held_out(hold_out_val(RECORDS, 0.1))


def test_a_larger_share_holds_out_a_superset() -> None:
    assert held_out(hold_out_val(RECORDS, 0.1)) < held_out(hold_out_val(RECORDS, 0.3))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.001, 1), (0.5, 25), (0.999, 49)])
def test_at_least_one_identity_is_held_out_and_one_stays(share: float, expected: int) -> None:
    assert len(held_out(hold_out_val(RECORDS, share))) == expected


def test_a_val_split_of_the_data_is_left_alone() -> None:
    records = [*RECORDS, Record(99, "v", ("x",), "val")]
    assert hold_out_val(records, 0.5) == records


def test_a_single_training_identity_is_not_held_out() -> None:
    assert held_out(hold_out_val(RECORDS[:2], 0.5)) == set()


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 2), ("max 100000", 64), ("", 64)])
def test_the_quota_of_a_container_limits_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr("irra.utils.cores.CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert available_cores() == expected


def test_the_stage_loads_neither_torch_nor_its_company() -> None:
    script = (
        "import sys, irra.data.preparation, irra.data.store\n"
        "print({'torch', 'open_clip', 'mlflow', 'pandas'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("there", "named", "said"),
    [
        ("imgs/a.JPG", "a.jpg", "has a.JPG"),
        ("imgs/imgs/a.jpg", "a.jpg", "move what is there"),
        ("imgs/a.jpg", "imgs/a.jpg", "remove the prefix imgs/"),
    ],
)
def test_a_usual_mistake_in_the_layout_is_recognised(tmp_path: Path, there: str, named: str, said: str) -> None:
    (tmp_path / there).parent.mkdir(parents=True)
    (tmp_path / there).touch()
    assert said in str(_found_elsewhere(tmp_path / "imgs" / named))


def test_what_skipping_leaves_is_compared_with_the_published_sizes() -> None:
    with pytest.warns(UserWarning, match="not comparable with published ones"):
        warn_of_other_sizes("RSTPReid", RECORDS)
