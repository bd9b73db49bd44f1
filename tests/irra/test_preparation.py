import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from PIL import Image

from irra.config import PrepareConfig
from irra.data import images as decoding
from irra.data import preparation
from irra.data import store as storing
from irra.data.datasets import Record, warn_of_other_sizes
from irra.data.images import BadImage, load_image
from irra.data.preparation import _found_elsewhere, hold_out_val, prepare, prepare_dataset
from irra.data.store import PreparedStore
from irra.utils.cores import available_cores
from irra.utils.errors import UserError
from irra.utils.files import partial_folder
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


SHARD = 4  # images; so that splits fill several shards, the last of which is not full


def write_plainly(source: Path, target: Path) -> dict[str, Any]:
    """What prepare should write for `on_bad_image: skip`, one thing after the other; returns some of its stats."""
    entries = json.loads((source / "annotations.json").read_text())
    entries.sort(key=lambda entry: ["train", "val", "test"].index(entry["split"]))
    digest = hashlib.sha256(f"(1, {SIZE[0]}, {SIZE[1]})".encode())
    good, pixels, skipped = [], [], []
    for entry in entries:
        try:
            pixels.append(load_image(source / "imgs" / entry["file_path"], SIZE))
            good.append(entry)
        except BadImage as error:
            skipped.append({"path": entry["file_path"], "reason": error.reason})
    digest.update(np.stack(pixels).tobytes())
    train = sorted({entry["id"] for entry in good if entry["split"] == "train"})
    captions = [(number, text) for number, entry in enumerate(good) for text in entry["captions"]]
    images = {
        "image_id": list(range(len(good))),
        "pid": [entry["id"] for entry in good],
        "label": [train.index(entry["id"]) if entry["split"] == "train" else -1 for entry in good],
        "split": [entry["split"] for entry in good],
        "path": [entry["file_path"] for entry in good],
    }
    texts = {
        "caption_id": list(range(len(captions))),
        "image_id": [number for number, _ in captions],
        "text": [text for _, text in captions],
    }
    target.mkdir()
    shards = 0
    for split in ("train", "val", "test"):
        rows = [image for image, entry in zip(pixels, good, strict=True) if entry["split"] == split]
        for start in range(0, len(rows), SHARD):
            np.save(target / f"shard-{shards:05d}.npy", np.stack(rows[start : start + SHARD]))
            shards += 1
    for table in (images, texts):
        digest.update(json.dumps(table).encode())
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in target.iterdir()}
    return {"skipped": skipped, "fingerprint": digest.hexdigest(), "sha256": hashes}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are small."""
    monkeypatch.setattr(storing, "SHARD_IMAGES", SHARD)


@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore:.*images skipped")
def test_the_store_is_that_of_a_plain_loop_whatever_the_number_of_workers(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CHUNK_IMAGES", 3)
    monkeypatch.setattr(decoding, "IMAGES_PER_WORKER", 8)
    for bad in ("1/0.png", "4/2.png", "7/4.png", "2/0.png", "0/3.png", "6/4.png"):  # first, inner and last of a split
        (source / "imgs" / bad).write_bytes(b"")
    (source / "imgs" / "5" / "1.png").unlink()
    expected = write_plainly(source, tmp_path / "plain")
    shards = contents(tmp_path / "plain")
    stores = []
    for workers in (1, 2, 3):
        stats = prepare(config(tmp_path, on_bad_image="skip"), source, tmp_path / str(workers), workers=workers)
        stores.append(contents(tmp_path / str(workers)))
        assert shards == {name: data for name, data in stores[-1].items() if name.endswith(".npy")}
        assert expected["skipped"] == stats["skipped"]
        assert expected["fingerprint"] == stats["fingerprint"]
        assert expected["sha256"].items() <= stats["sha256"].items()
    assert stores[0] == stores[1] == stores[2]


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


def test_an_error_half_way_leaves_the_previous_store_and_what_is_finished_beside_it(
    tmp_path: Path, source: Path
) -> None:
    target = tmp_path / "data" / "prepared"
    prepare(config(tmp_path), source, target)
    before = contents(target)
    (source / "imgs" / "6" / "4.png").write_bytes(b"no image")
    with pytest.raises(UserError):
        prepare(config(tmp_path), source, target)
    assert contents(target) == before
    assert sorted(target.parent.iterdir()) == [target, partial_folder(target)]


def test_an_error_before_anything_is_finished_leaves_nothing(tmp_path: Path, source: Path) -> None:
    (source / "imgs" / "7" / "4.png").write_bytes(b"no image")  # the last of the first split, all in one shard
    with pytest.raises(UserError):
        prepare(config(tmp_path), source, tmp_path / "data" / "prepared")
    assert list((tmp_path / "data").iterdir()) == []


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are decoded from now on."""
    found: list[str] = []

    def load(paths: Iterable[Path], size: tuple[int, int], workers: int) -> Iterator[Any]:
        for path in paths:
            found.append(f"{path.parent.name}/{path.name}")
            yield from decoding.load_images([path], size, workers)

    monkeypatch.setattr(preparation, "load_images", load)
    return found


KILLED = """
import os, signal, sys
from pathlib import Path
from irra.config import PrepareConfig
from irra.data import images, store
from irra.data.preparation import prepare
from irra.data.resume import Notes

class Killed(Notes):
    def add(self, shard):
        super().add(shard)
        if shard.number == 2:
            os.kill(os.getpid(), int(sys.argv[3]))

if __name__ == "__main__":
    store.SHARD_IMAGES, images.CHUNK_IMAGES, images.IMAGES_PER_WORKER, store.MAX_PENDING = 4, 3, 8, 0
    import irra.data.preparation
    irra.data.preparation.Notes = Killed
    config = PrepareConfig.model_validate_json(sys.argv[4])
    prepare(config, Path(sys.argv[1]), Path(sys.argv[2]), workers=int(sys.argv[5]))
"""


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGKILL, 2), (signal.SIGTERM, 1), (signal.SIGINT, 1)])
def test_a_killed_prepare_goes_on_where_it_was_stopped(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, workers: int
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    target = tmp_path / "data" / "prepared"
    command = [sys.executable, str(tmp_path / "killed.py"), str(source), str(target), str(int(number))]
    command += [config(tmp_path).model_dump_json(), str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == -number, done.stderr
    assert not target.exists()
    rest = decoded(monkeypatch)
    prepare(config(tmp_path), source, target)
    assert 0 < len(rest) <= len(SPLIT_OF_PID) * IMAGES - 3 * SHARD
    assert list(target.parent.iterdir()) == [target]
    prepare(config(tmp_path), source, tmp_path / "undisturbed")
    assert contents(target) == contents(tmp_path / "undisturbed")


LAST = "6/4.png"  # in the order of the store


@pytest.fixture
def stopped(tmp_path: Path, source: Path, small: None) -> Path:
    """Where a store should be whose last image was broken; one of the first shard was skipped."""
    good = (source / "imgs" / LAST).read_bytes()
    (source / "imgs" / LAST).write_bytes(b"no image")
    with pytest.raises(UserError, match=LAST):
        prepare(config(tmp_path), source, tmp_path / "data" / "prepared")
    (source / "imgs" / LAST).write_bytes(good)
    return tmp_path / "data" / "prepared"


def gone_on(target: Path, source: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[str]:
    """Prepare again, compare with a store that is made from nothing; returns the images that were decoded."""
    with monkeypatch.context() as patch:
        found = decoded(patch)
        prepare(config(source.parent, **changes), source, target)
    prepare(config(source.parent, **changes), source, target.parent / "undisturbed")
    assert contents(target) == contents(target.parent / "undisturbed")
    assert not partial_folder(target).exists()
    return found


def test_after_an_image_was_repaired_only_the_last_shard_is_made(
    source: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gone_on(stopped, source, monkeypatch) == ["6/3.png", LAST]


def test_an_image_that_changed_meanwhile_is_read_again(
    source: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source / "imgs" / "3" / "2.png"  # the eighth, in the second shard
    times = path.stat()
    Image.new("RGB", (12, 30), "red").save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # by its size alone
    assert gone_on(stopped, source, monkeypatch)[:4] == ["1/4.png", "3/0.png", "3/1.png", "3/2.png"]


def test_an_image_with_another_time_is_read_again(source: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = source / "imgs" / "3" / "2.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert gone_on(stopped, source, monkeypatch)[0] == "1/4.png"


def test_another_size_starts_over(source: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(gone_on(stopped, source, monkeypatch, image_size=[8, 16])) == 40


def test_other_annotations_start_over_from_where_they_differ(
    source: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = json.loads((source / "annotations.json").read_text())
    del entries[[entry["file_path"] for entry in entries].index("3/2.png")]
    (source / "annotations.json").write_text(json.dumps(entries))
    assert gone_on(stopped, source, monkeypatch)[0] == "1/4.png"


@pytest.mark.parametrize("name", ["new/shard-00001.npy", "shard-00001.json"])
def test_a_damaged_shard_or_note_is_made_again(
    source: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = partial_folder(stopped) / name
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    assert gone_on(stopped, source, monkeypatch)[0] == "1/4.png"


@pytest.mark.filterwarnings("ignore:.*images skipped")
def test_a_kept_shard_keeps_what_was_skipped_if_that_is_still_allowed(
    tmp_path: Path, source: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, skipping = tmp_path / "data" / "prepared", config(tmp_path, on_bad_image="skip")
    for bad in ("3/1.png", *(f"2/{number}.png" for number in range(IMAGES))):
        (source / "imgs" / bad).write_bytes(b"no image")
    with pytest.raises(UserError, match="no usable image is left in split 'val'"):
        prepare(skipping, source, target)
    shutil.copytree(target.parent, tmp_path / "again")
    with pytest.raises(UserError, match=r"3/1\.png: not a"):
        prepare(config(tmp_path), source, tmp_path / "again" / "prepared")
    Image.new("RGB", (12, 30)).save(source / "imgs" / "2" / "0.png")
    assert gone_on(target, source, monkeypatch, on_bad_image="skip")[0] == "2/0.png"


def test_people_rendered_again_are_not_decoded_again(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = {"train_ids": 3, "val_ids": 1, "test_ids": 1, "images_per_id": 2, "captions_per_image": 1, "seed": 0}
    target, settings = tmp_path / "prepared", config(tmp_path, dataset_name="synthetic", synthetic=people)
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_check_splits", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            prepare_dataset(settings, target)
    found = decoded(monkeypatch)
    prepare_dataset(settings, target)
    assert found == []


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
        ("imgs/a.jpg", "images/a.jpg", "imgs/a.jpg is there: move what is in"),
    ],
)
def test_a_usual_mistake_in_the_layout_is_recognised(tmp_path: Path, there: str, named: str, said: str) -> None:
    (tmp_path / there).parent.mkdir(parents=True)
    (tmp_path / there).touch()
    assert said in str(_found_elsewhere(tmp_path / "imgs", PurePosixPath(named)))


def test_what_skipping_leaves_is_compared_with_the_published_sizes() -> None:
    with pytest.warns(UserWarning, match="not comparable with published ones"):
        warn_of_other_sizes("RSTPReid", RECORDS)
