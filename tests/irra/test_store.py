import errno
import json
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from irra.data.datasets import Record
from irra.data.store import SHARD_IMAGES, PreparedStore, Shard, StoreWriter, training_labels
from irra.utils.errors import UserError
from irra.utils.records import write_record

SIZE = (6, 4)
# More than a shard of training images, and less than one of each other split.
RECORDS = [
    Record(
        pid=100 + 3 * (number // 2),
        path=f"cam/{number}.jpg",
        captions=tuple(f"caption {number}.{count} 外套" for count in range(1 + number % 3)),
        split="train" if number < SHARD_IMAGES + 6 else "val" if number < SHARD_IMAGES + 10 else "test",
    )
    for number in range(SHARD_IMAGES + 17)
]


def picture(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def write(folder: Path, records: list[Record] = RECORDS, first_picture: int = 0) -> Path:
    folder.mkdir()
    writer = StoreWriter(folder, "mine", SIZE)
    for number, record in enumerate(records):
        writer.add(record, picture(first_picture + number))
    writer.finish()
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("store") / "prepared")


@pytest.fixture
def full_store(root: Path) -> PreparedStore:
    return PreparedStore.open(root)


def test_the_manifests_come_back_as_written(full_store: PreparedStore) -> None:
    captions = [(number, text) for number, record in enumerate(RECORDS) for text in record.captions]
    assert full_store.dataset_name == "mine"
    assert full_store.image_size == SIZE
    assert full_store.splits == ("train", "val", "test")
    assert full_store.image_paths == [record.path for record in RECORDS]
    assert full_store.image_pids.tolist() == [record.pid for record in RECORDS]
    assert list(zip(full_store.caption_image_ids.tolist(), full_store.captions, strict=True)) == captions


def test_ids_are_int64(full_store: PreparedStore) -> None:
    arrays = [
        full_store.image_pids,
        full_store.image_labels,
        full_store.caption_image_ids,
        full_store.image_ids("val"),
        full_store.caption_ids("val"),
    ]
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_ids_of_a_split_are_those_of_a_plain_loop(full_store: PreparedStore, split: str) -> None:
    images = [number for number, record in enumerate(RECORDS) if record.split == split]
    captions = [
        number for number, image in enumerate(full_store.caption_image_ids.tolist()) if RECORDS[image].split == split
    ]
    assert full_store.image_ids(split).tolist() == images
    assert full_store.caption_ids(split).tolist() == captions


def test_random_access_over_all_shards_equals_a_plain_loop(full_store: PreparedStore) -> None:
    ids = np.random.default_rng(1).integers(0, len(RECORDS), 300)  # with repeats
    assert np.array_equal(full_store.pixels(ids), np.stack([picture(number) for number in ids]))


def test_no_ids_give_no_pixels(full_store: PreparedStore) -> None:
    assert full_store.pixels(np.array([], dtype=np.int64)).shape == (0, *SIZE, 3)


@pytest.mark.parametrize("image_id", [-1, len(RECORDS)])
def test_an_id_out_of_range_is_our_own_bug(full_store: PreparedStore, image_id: int) -> None:
    with pytest.raises(AssertionError):
        full_store.pixels(np.array([image_id]))


def test_a_shard_holds_one_split_and_at_most_the_limit(root: Path) -> None:
    lengths = [len(np.load(path, mmap_mode="r")) for path in sorted(root.glob("shard-*.npy"))]
    assert lengths == [SHARD_IMAGES, 6, 4, 7]


def test_labels_are_contiguous_over_the_sorted_training_pids() -> None:
    records = [Record(pid, str(pid), ("x",), split) for pid, split in [(9, "train"), (2, "train"), (5, "test")]]
    records.append(Record(9, "again", ("x",), "train"))
    assert training_labels(records) == [1, 0, -1, 1]


def test_the_number_of_classes_is_that_of_training_identities(full_store: PreparedStore) -> None:
    train = [record.pid for record in RECORDS if record.split == "train"]
    assert full_store.num_classes == len(set(train))
    assert sorted(set(full_store.image_labels.tolist())) == [-1, *range(full_store.num_classes)]


def test_a_store_without_training_images_has_no_classes(tmp_path: Path) -> None:
    root = write(tmp_path / "prepared", [Record(5, "a.jpg", ("x",), "test")])
    assert PreparedStore.open(root).num_classes == 0


def test_an_absent_split_is_answered_with_those_present(tmp_path: Path) -> None:
    opened = PreparedStore.open(write(tmp_path / "prepared", RECORDS[:3]))
    with pytest.raises(UserError, match="no split 'val'; it has train"):
        opened.image_ids("val")
    with pytest.raises(UserError, match="no split 'test'; it has train"):
        opened.caption_ids("test")


def test_a_pickled_store_reads_on_and_carries_no_pixels(full_store: PreparedStore) -> None:
    ids = np.arange(len(RECORDS))
    before = len(pickle.dumps(full_store))
    pixels = full_store.pixels(ids)
    pickled = pickle.dumps(full_store)
    assert len(pickled) == before
    assert np.array_equal(pickle.loads(pickled).pixels(ids), pixels)


def test_a_forked_process_reads_the_shards_its_parent_opened(full_store: PreparedStore) -> None:
    ids = np.array([SHARD_IMAGES + 8, 2])
    pixels = full_store.pixels(ids)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=lambda: sender.send(full_store.pixels(ids)))
    child.start()
    assert receiver.poll(20)
    assert np.array_equal(receiver.recv(), pixels)
    child.join()


def test_the_fingerprint_does_not_depend_on_where_the_store_lies(tmp_path: Path, full_store: PreparedStore) -> None:
    assert PreparedStore.open(write(tmp_path / "elsewhere")).fingerprint == full_store.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"first_picture": 1},
        {"records": [*RECORDS[:-1], Record(RECORDS[-1].pid, RECORDS[-1].path, ("another",), "test")]},
        {"records": [*RECORDS[:-1], Record(7, RECORDS[-1].path, RECORDS[-1].captions, "test")]},
        {"records": RECORDS[:-1]},
    ],
    ids=["pixels", "caption", "pid", "fewer"],
)
def test_the_fingerprint_changes_with_the_content(
    tmp_path: Path, full_store: PreparedStore, change: dict[str, object]
) -> None:
    other = PreparedStore.open(write(tmp_path / "other", **change))  # type: ignore[arg-type]
    assert other.fingerprint != full_store.fingerprint


KNOWN = [  # more than a byte of bits, and records of which nothing is known between others
    replace(
        record,
        wrong=tuple((number + count) % 3 == 0 for count in range(len(record.captions))) if number % 4 else None,
        back_translated=tuple("" if count % 2 else f"other {number} 外套" for count in range(len(record.captions)))
        if number % 5
        else None,
    )
    for number, record in enumerate(RECORDS[:20])
]


def test_wrong_and_back_translated_captions_come_back_as_known(tmp_path: Path) -> None:
    store = PreparedStore.open(write(tmp_path / "prepared", KNOWN))
    wrong = [flag for record in KNOWN for flag in record.wrong or [False] * len(record.captions)]
    twins = [text or None for record in KNOWN for text in record.back_translated or [""] * len(record.captions)]
    assert store.wrong_captions is not None
    assert (store.wrong_captions.dtype, store.wrong_captions.tolist()) == (np.bool_, wrong)
    assert store.back_translated == twins
    table = pq.ParquetFile(tmp_path / "prepared" / "captions.parquet").read()
    assert table["wrong"].null_count == sum(len(record.captions) for record in KNOWN if record.wrong is None)
    assert table["back_translated"].null_count == twins.count(None)


@pytest.mark.parametrize("columns", [[], ["wrong"], ["back_translated"]])
def test_what_is_known_of_captions_is_a_column_only_of_data_that_have_it(tmp_path: Path, columns: list[str]) -> None:
    missing = dict.fromkeys({"wrong", "back_translated"}.difference(columns))
    root = write(tmp_path / "prepared", [replace(record, **missing) for record in KNOWN])
    found = pq.ParquetFile(root / "captions.parquet").read().column_names
    assert found == ["caption_id", "image_id", "text", *columns]
    store = PreparedStore.open(root)
    assert (store.wrong_captions is not None) == ("wrong" in columns)
    assert (store.back_translated is not None) == ("back_translated" in columns)


def test_the_fingerprint_changes_with_what_is_known_of_captions(tmp_path: Path) -> None:
    none = [replace(record, wrong=None, back_translated=None) for record in KNOWN]
    all_right = [replace(record, wrong=(False,) * len(record.captions)) for record in none]
    one_wrong = [replace(all_right[0], wrong=(True,) * len(all_right[0].captions)), *all_right[1:]]
    variants = {"none": none, "right": all_right, "wrong": one_wrong, "twins": KNOWN}
    assert len({PreparedStore.open(write(tmp_path / name, each)).fingerprint for name, each in variants.items()}) == 4


@pytest.mark.parametrize(
    "change",
    [lambda table: table.append_column("more", table["text"]), lambda table: table.drop_columns("text")],
    ids=["more", "fewer"],
)
def test_other_columns_are_refused(tmp_path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    root = write(tmp_path / "prepared", KNOWN)
    path = root / "captions.parquet"
    pq.write_table(change(pq.ParquetFile(path).read()), path)
    with pytest.raises(UserError, match=r"captions\.parquet: damaged \(columns"):
        PreparedStore.open(root)


def test_splits_out_of_order_are_our_own_bug(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, "mine", SIZE)
    writer.add(Record(1, "a", ("x",), "test"), picture(0))
    with pytest.raises(AssertionError, match="out of order"):
        writer.add(Record(2, "b", ("x",), "train"), picture(1))


def test_a_writer_that_keeps_shards_of_another_writes_the_same_store(tmp_path: Path) -> None:
    skipped = RECORDS[3]
    first = tmp_path / "first"
    first.mkdir()
    shards: list[Shard] = []
    writer = StoreWriter(first, "mine", SIZE, shards.append)
    for number, record in enumerate(RECORDS):
        if record is skipped:
            writer.skip(record, "small")
        else:
            writer.add(record, picture(number))
    stats = writer.finish()
    assert [(shard.start, shard.end) for shard in shards] == [
        (0, SHARD_IMAGES + 1),
        (SHARD_IMAGES + 1, SHARD_IMAGES + 6),
        (SHARD_IMAGES + 6, SHARD_IMAGES + 10),
        (SHARD_IMAGES + 10, SHARD_IMAGES + 17),
    ]
    for count in range(1, len(shards) + 1):
        folder = tmp_path / str(count)
        shutil.copytree(first, folder)
        writer = StoreWriter(folder, "mine", SIZE)
        for shard in shards[:count]:
            writer.keep(shard, RECORDS[shard.start : shard.end])
        for number, record in list(enumerate(RECORDS))[shards[count - 1].end :]:
            writer.add(record, picture(number))
        assert writer.finish() == stats


def test_a_thread_that_cannot_write_is_no_secret(tmp_path: Path) -> None:
    def fail(shard: Shard) -> None:
        raise OSError(errno.ENOSPC, "full")

    writer = StoreWriter(tmp_path, "mine", SIZE, fail)
    writer.add(RECORDS[0], picture(0))
    with pytest.raises(OSError, match="full"):
        writer.finish()


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def set_version(path: Path) -> None:
    write_record(path, {**json.loads(path.read_text()), "format_version": 0})


def drop_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def other_size(path: Path) -> None:
    np.save(path, np.zeros((7, 4, 6, 3), np.uint8))


def fewer_rows(path: Path) -> None:
    np.save(path, np.zeros((6, *SIZE, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("stats.json", Path.unlink, "not a prepared dataset"),
        ("stats.json", cut_in_half, "stats.json: damaged"),
        ("stats.json", set_version, "format version 0, expected 1"),
        ("images.parquet", Path.unlink, "images.parquet: missing"),
        ("images.parquet", cut_in_half, "images.parquet: damaged"),
        ("captions.parquet", Path.unlink, "captions.parquet: missing"),
        ("shard-00000.npy", Path.unlink, r"shard-00000\.npy: missing"),
        ("shard-00003.npy", Path.unlink, r"shard-00003\.npy: missing"),
        ("shard-00003.npy", drop_last_byte, "bytes where its header says"),
        ("shard-00003.npy", lambda path: path.write_bytes(b""), "shard-00003.npy: damaged"),
        ("shard-00003.npy", other_size, "expected uint8 \\(k, 6, 4, 3\\)"),
        ("shard-00003.npy", fewer_rows, "1040 rows where stats.json counts 1041"),
    ],
)
def test_a_damaged_store_is_refused_on_opening(
    tmp_path: Path, name: str, damage: Callable[[Path], object], expected: str
) -> None:
    root = write(tmp_path / "prepared")
    damage(root / name)
    with pytest.raises(UserError, match=expected):
        PreparedStore.open(root)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_of_a_shard_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    root = write(tmp_path / "prepared")
    flip(root / "shard-00003.npy", -1)
    opened = PreparedStore.open(root)
    opened.pixels(np.array([0]))
    with pytest.raises(UserError, match=r"shard-00003\.npy: damaged .*; run the prepare stage again"):
        opened.pixels(np.array([len(RECORDS) - 1]))


def test_a_store_of_an_earlier_version_opens(tmp_path: Path) -> None:
    root = write(tmp_path / "prepared")
    stats = json.loads((root / "stats.json").read_text())
    del stats["sha256"], stats["checksum"]
    (root / "stats.json").write_text(json.dumps(stats))
    assert len(PreparedStore.open(root).pixels(np.array([0]))) == 1


def test_every_damaged_byte_of_a_small_store_gives_a_message(tmp_path: Path) -> None:
    root = write(tmp_path / "prepared", RECORDS[:2])
    for path in [root / "images.parquet", root / "captions.parquet", root / "shard-00000.npy"]:
        whole = path.read_bytes()
        for position in range(0, len(whole), 7):
            flip(path, position)
            with pytest.raises(UserError, match="again"):
                PreparedStore.open(root).pixels(np.array([0]))
            path.write_bytes(whole)


@pytest.mark.parametrize(
    "content", [b"\xff", b"null", b"[" * 100_000, b'{"format_version": "1"}', b'{"format_version": 1}']
)
def test_stats_of_something_else_are_refused(tmp_path: Path, content: bytes) -> None:
    root = write(tmp_path / "prepared", RECORDS[:2])
    (root / "stats.json").write_bytes(content)
    with pytest.raises(UserError, match=r"stats\.json: damaged .*; run the prepare stage again"):
        PreparedStore.open(root)


def test_manifests_of_another_store_are_refused(tmp_path: Path) -> None:
    root, other = write(tmp_path / "prepared"), write(tmp_path / "other", RECORDS[:-1])
    (other / "captions.parquet").replace(root / "captions.parquet")
    with pytest.raises(UserError, match=r"captions.parquet: damaged \(its sha256"):
        PreparedStore.open(root)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the prepare stage first"):
        PreparedStore.open(tmp_path / "nowhere")
