"""The prepared dataset on disk: Parquet manifests and memory-mapped shards of resized uint8 pixels.

images.parquet    image_id, pid, label, split, path     one row per image: train, then val, then test
captions.parquet  caption_id, image_id, text            one row per caption, in the order of the images; where the
                  wrong, back_translated                dataset has them also these, null where they are not known
shard-00000.npy   uint8 (k, H, W, 3)                    k <= SHARD_IMAGES; a shard holds one split only
stats.json        counts, skipped images, settings, fingerprint, SHA-256 of the other files
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from irra.data.datasets import SPLITS, Record, Size, split_sizes
from irra.utils.errors import UserError
from irra.utils.files import hash_file, sync_path
from irra.utils.npy import read_npy_header, write_npy_header
from irra.utils.records import check_files, read_record, write_record

FORMAT_VERSION = 1
SHARD_IMAGES = 1024
NO_LABEL = -1
HASHED_BYTES = 1 << 20  # at once: Python's lock is free meanwhile
MAX_PENDING = 8  # tasks of threads: what they hash should still be in memory

INT, TEXT = pa.int32(), pa.string()
IMAGE_SCHEMA = pa.schema({"image_id": INT, "pid": INT, "label": INT, "split": TEXT, "path": TEXT})
CAPTION_SCHEMA = pa.schema({"caption_id": INT, "image_id": INT, "text": TEXT})
OPTIONAL_COLUMNS = pa.schema({"wrong": pa.bool_(), "back_translated": TEXT})

TABLES = {"images.parquet": IMAGE_SCHEMA, "captions.parquet": CAPTION_SCHEMA}
AGAIN = "run the prepare stage again"

Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Stats:
    """The contents of stats.json; `sha256` of the other files, by name, is empty in stores of an earlier version."""

    format_version: int
    dataset_name: str
    image_size: tuple[int, int]
    splits: dict[str, Size]
    skipped: list[dict[str, str]]
    fingerprint: str
    settings: dict[str, Any] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Version:
    format_version: int


@dataclass(frozen=True)
class Shard:
    """A finished shard, and the span of records that it used up, in the order in which they were added and skipped."""

    number: int
    start: int
    end: int
    skipped: list[dict[str, str]]  # among these
    sha256: str = ""


class StoreWriter:
    """Writes a store into a folder, image by image as they come; other threads hash what was written.

    Args:
        folder: A folder that is empty but for the shards to `keep`.
        dataset_name: Name of the dataset.
        image_size: Height and width.
        on_shard: Called in another thread with each shard that is on disk.
    """

    def __init__(
        self,
        folder: Path,
        dataset_name: str,
        image_size: tuple[int, int],
        on_shard: Callable[[Shard], None] = lambda shard: None,
    ) -> None:
        self._folder = folder
        self._dataset_name = dataset_name
        self._image_size = image_size
        self._on_shard = on_shard
        self._records: list[Record] = []
        self._skipped: list[dict[str, str]] = []
        self._unlisted: list[dict[str, str]] = []  # those that no shard lists yet
        self._end = 0  # of the last shard
        self._number = 0  # of the shard that is being written
        self._rows = 0
        self._file: BinaryIO | None = None
        self._sha256: dict[str, str] = {}
        self._hash = hashlib.sha256(repr((FORMAT_VERSION, *image_size)).encode())
        # One thread, since the fingerprint is that of all pixels in their order, and one more for the hashes of shards.
        self._fingerprinting, self._sealing = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()

    def keep(self, shard: Shard, records: Sequence[Record]) -> None:
        """Take over a finished shard, which used up `records`; all kept shards come first, in order."""
        assert (shard.number, shard.start, shard.end) == (self._number, self._end, self._end + len(records))
        skipped = {item["path"] for item in shard.skipped}
        self._records += [record for record in records if record.path not in skipped]
        self._skipped += shard.skipped
        self._sha256[self._path().name] = shard.sha256
        self._submit(self._fingerprinting, self._hash_pixels, self._path())
        self._number, self._end = shard.number + 1, shard.end

    def add(self, record: Record, pixels: Pixels) -> None:
        """Append an image with `pixels` (H, W, 3); splits must come in the order of SPLITS."""
        if self._records and self._records[-1].split != record.split:
            assert SPLITS.index(self._records[-1].split) < SPLITS.index(record.split), "splits out of order"
            self._finish_shard()
        assert pixels.shape == (*self._image_size, 3)
        assert pixels.dtype == np.uint8
        if self._file is None:
            self._file = self._path().open("wb")
            self._write_header(self._file)
        self._file.write(pixels.data)
        self._rows += 1
        self._records.append(record)
        if self._rows == SHARD_IMAGES:
            self._finish_shard()

    def skip(self, record: Record, reason: str) -> None:
        """Leave out an image and its captions, and record the reason."""
        for items in (self._skipped, self._unlisted):
            items.append({"path": record.path, "reason": reason})

    def finish(self, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write the last shard, the manifests and stats.json, which also records `settings`; returns the stats."""
        self._finish_shard()
        tables = {"images.parquet": _image_table(self._records), "captions.parquet": _caption_table(self._records)}
        self._wait(0)
        for name, table in tables.items():
            pq.write_table(table, self._folder / name)
            self._sha256[name] = hash_file(self._folder / name)
            self._hash.update(json.dumps(table.to_pydict()).encode())
        stats = {
            "format_version": FORMAT_VERSION,
            "dataset_name": self._dataset_name,
            "image_size": list(self._image_size),
            "splits": {split: vars(size) for split, size in split_sizes(self._records).items()},
            "skipped": self._skipped,
            "settings": dict(settings or {}),
            "fingerprint": self._hash.hexdigest(),
            "sha256": dict(sorted(self._sha256.items())),
        }
        write_record(self._folder / "stats.json", stats)
        self.close()
        return stats

    def close(self) -> None:
        """End the threads when they have done what was given to them; a shard that is not full remains unfinished."""
        if self._file is not None:
            self._file.close()
        for threads in (self._fingerprinting, self._sealing):
            threads.shutdown()

    def _finish_shard(self) -> None:
        if self._file is None:
            return
        self._file.seek(0)
        self._write_header(self._file)
        self._file.close()
        end = len(self._records) + len(self._skipped)
        shard = Shard(self._number, self._end, end, self._unlisted)
        self._submit(self._fingerprinting, self._hash_pixels, self._path())
        self._submit(self._sealing, self._seal, shard, self._path())
        self._number, self._end, self._rows, self._file, self._unlisted = self._number + 1, end, 0, None, []
        self._wait(MAX_PENDING)

    def _write_header(self, file: BinaryIO) -> None:
        write_npy_header(file, np.dtype(np.uint8), (self._rows, *self._image_size, 3))

    def _path(self) -> Path:
        return shard_path(self._folder, self._number)

    def _submit(self, threads: ThreadPoolExecutor, task: Callable[..., None], *arguments: Any) -> None:
        self._pending.append(threads.submit(task, *arguments))

    def _wait(self, pending: int) -> None:
        """Wait until at most so many tasks are pending, and raise what they raised."""
        while len(self._pending) > pending:
            self._pending.popleft().result()

    def _seal(self, shard: Shard, path: Path) -> None:
        sync_path(path)
        self._sha256[path.name] = hash_file(path)
        self._on_shard(replace(shard, sha256=self._sha256[path.name]))

    def _hash_pixels(self, path: Path) -> None:
        with path.open("rb", buffering=0) as file:
            read_npy_header(file)
            while block := file.read(HASHED_BYTES):
                self._hash.update(block)


def training_labels(records: list[Record]) -> list[int]:
    """Labels of the records: training pids, sorted, numbered from 0; NO_LABEL outside the training split."""
    pids = sorted({record.pid for record in records if record.split == "train"})
    labels = {pid: label for label, pid in enumerate(pids)}
    return [labels[record.pid] if record.split == "train" else NO_LABEL for record in records]


class PreparedStore:
    """Read access to a prepared dataset: manifests in memory, pixels memory-mapped on demand.

    Attributes:
        image_pids, image_labels: int64 (n,).
        caption_image_ids: int64 (m,), the image of each caption.
        wrong_captions: bool (m,), whether a caption is known to describe somebody else; None if the dataset knows none.
        back_translated: The same as each caption in other words, None where there are none; None if there are none.
        stats: The contents of stats.json.
        num_classes: Number of training identities.
        settings: Parameters of the stage that wrote it.
    """

    def __init__(self, root: Path, stats: Stats, images: pa.Table, captions: pa.Table) -> None:
        self.root = root
        self.stats = stats
        self.image_size = stats.image_size
        self.fingerprint = stats.fingerprint
        self.dataset_name = stats.dataset_name
        self.settings = stats.settings
        self.sha256 = stats.sha256
        self.splits = tuple(split for split in SPLITS if split in stats.splits)
        self.image_pids = _int_column(images, "pid")
        self.image_labels = _int_column(images, "label")
        self.image_paths: list[str] = images["path"].to_pylist()
        self.captions: list[str] = captions["text"].to_pylist()
        self.caption_image_ids = _int_column(captions, "image_id")
        self.wrong_captions = _wrong_column(captions)
        self.back_translated = _optional_column(captions, "back_translated")
        self.num_classes = int(self.image_labels.max(initial=NO_LABEL)) + 1
        self._image_splits = np.array(images["split"].to_pylist(), dtype=np.str_)
        lengths = [_shard_length(path, self.image_size) for path in _shard_paths(root)]
        self._starts: Ints = np.cumsum([0, *lengths], dtype=np.int64)
        self._shards: dict[int, Pixels] = {}

    @classmethod
    def open(cls, root: Path) -> "PreparedStore":
        """Open the store in `root`.

        Raises:
            UserError: It is missing, incomplete, damaged or of another format version.
        """
        stats = _read_stats(root)
        check_files(root, stats.sha256, AGAIN, largest=-1)  # that they are there
        images, captions = (_read_table(root, stats, name, schema) for name, schema in TABLES.items())
        store = cls(root, stats, images, captions)
        store._check_counts(stats)
        return store

    def image_ids(self, split: str) -> Ints:
        """Ids of the images of `split`, ascending.

        Raises:
            UserError: The data has no such split.
        """
        self._check_split(split)
        return np.flatnonzero(self._image_splits == split)

    def caption_ids(self, split: str) -> Ints:
        """Ids of the captions of `split`, ascending.

        Raises:
            UserError: The data has no such split.
        """
        self._check_split(split)
        return np.flatnonzero(self._image_splits[self.caption_image_ids] == split)

    def pixels(self, image_ids: Ints) -> Pixels:
        """Pixels uint8 (n, H, W, 3) in the order of `image_ids`, which may repeat; each shard is read front to back.

        Raises:
            UserError: A shard is damaged, which is looked for when it is first read.
        """
        ids = np.asarray(image_ids, dtype=np.int64)
        assert ids.ndim == 1
        assert ((ids >= 0) & (ids < len(self.image_pids))).all(), "image ids out of range"
        result: Pixels = np.empty((len(ids), *self.image_size, 3), dtype=np.uint8)
        shards = np.searchsorted(self._starts, ids, side="right") - 1
        rows = ids - self._starts[shards]
        for position in np.argsort(ids, kind="stable"):
            result[position] = self._shard(int(shards[position]))[rows[position]]
        return result

    def _shard(self, index: int) -> Pixels:
        if index not in self._shards:
            self._check_files([shard_path(self.root, index).name])
            # A plain array over the map: slicing np.memmap itself takes several microseconds longer each time.
            self._shards[index] = np.asarray(np.load(shard_path(self.root, index), mmap_mode="r"))
        return self._shards[index]

    def verify(self) -> int:
        """Check the SHA-256 of every file; returns how many there are, 0 for a store of an earlier version.

        Raises:
            UserError: A file is missing or damaged.
        """
        self._check_files(list(self.sha256))
        return len(self.sha256)

    def _check_files(self, names: Sequence[str]) -> None:
        check_files(self.root, {name: self.sha256[name] for name in names if name in self.sha256}, AGAIN)

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise UserError(f"{self.root}: no split {split!r}; it has {', '.join(self.splits)}")

    def _check_counts(self, stats: Stats) -> None:
        images = sum(size.images for size in stats.splits.values())
        captions = sum(size.captions for size in stats.splits.values())
        for name, found, expected in (
            ("images.parquet", len(self.image_paths), images),
            ("captions.parquet", len(self.captions), captions),
            ("shard-*.npy", int(self._starts[-1]), images),
        ):
            if found != expected:
                raise UserError(
                    f"{self.root / name}: {found} rows where stats.json counts {expected}; run the prepare stage again"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}  # a pickled map would include its pixels


def shard_path(root: Path, index: int) -> Path:
    """Where a store has its shard of this number."""
    return root / f"shard-{index:05d}.npy"


def _shard_paths(root: Path) -> list[Path]:
    """Paths of the shards, numbered from 0 up to the first gap."""
    paths: list[Path] = []
    while (path := shard_path(root, len(paths))).is_file():
        paths.append(path)
    return paths


def _image_table(records: list[Record]) -> pa.Table:
    columns = [
        _int_array(range(len(records))),
        _int_array([record.pid for record in records]),
        _int_array(training_labels(records)),
        _text_array([record.split for record in records]),
        _text_array([record.path for record in records]),
    ]
    return pa.Table.from_arrays(columns, schema=IMAGE_SCHEMA)


def _caption_table(records: list[Record]) -> pa.Table:
    rows = [(image_id, text) for image_id, record in enumerate(records) for text in record.captions]
    columns = {
        "caption_id": _int_array(range(len(rows))),
        "image_id": _int_array([image_id for image_id, _ in rows]),
        "text": _text_array([text for _, text in rows]),
    }
    if any(record.wrong is not None for record in records):
        columns["wrong"] = _bool_array([flag for record in records for flag in record.wrong or _unknown(record)])
    twins = [text or None for record in records for text in record.back_translated or _unknown(record)]
    if any(twins):
        columns["back_translated"] = _text_array(twins)
    fields = [*CAPTION_SCHEMA, *(column for column in OPTIONAL_COLUMNS if column.name in columns)]
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields))


def _unknown(record: Record) -> list[None]:
    return [None] * len(record.captions)


# pa.array, pa.table, pq.read_table and to_numpy all import pandas, which takes longer than preparing a small dataset;
# this is by design: https://github.com/apache/arrow/pull/3893.


def _int_array(values: Sequence[int]) -> pa.Array:
    buffer = pa.py_buffer(np.asarray(values, dtype=np.int32))
    return pa.Array.from_buffers(INT, len(values), [None, buffer])


def _text_array(texts: Sequence[str | None]) -> pa.Array:
    encoded = [(text or "").encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [_present(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(TEXT, len(texts), buffers)


def _bool_array(flags: Sequence[bool | None]) -> pa.Array:
    return pa.Array.from_buffers(pa.bool_(), len(flags), [_present(flags), _bits([bool(flag) for flag in flags])])


def _present(values: Sequence[object]) -> pa.Buffer | None:
    """The validity bitmap of an array; none if no value is null."""
    known = [value is not None for value in values]
    return None if all(known) else _bits(known)


def _bits(flags: list[bool]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(np.array(flags, dtype=np.bool_), bitorder="little"))


def _int_column(table: pa.Table, name: str) -> Ints:
    return np.array(table[name].to_pylist(), dtype=np.int64)


def _optional_column(table: pa.Table, name: str) -> list[Any] | None:
    return table[name].to_pylist() if name in table.column_names else None


def _wrong_column(captions: pa.Table) -> NDArray[np.bool_] | None:
    flags = _optional_column(captions, "wrong")
    return None if flags is None else np.array([flag is True for flag in flags], dtype=np.bool_)


def _read_stats(root: Path) -> Stats:
    path = root / "stats.json"
    missing = f"{root}: not a prepared dataset (no stats.json); run the prepare stage first"
    version = read_record(path, _Version, missing, AGAIN).format_version
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: format version {version}, expected {FORMAT_VERSION}; {AGAIN}")
    return read_record(path, Stats, missing, AGAIN)


def _read_table(root: Path, stats: Stats, name: str, schema: pa.Schema) -> pa.Table:
    path = root / name
    if not path.is_file():
        raise UserError(f"{path}: missing; {AGAIN}")
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); {AGAIN}") from None
    present = [column for column in OPTIONAL_COLUMNS if schema is CAPTION_SCHEMA and column.name in table.column_names]
    if table.schema != pa.schema([*schema, *present]) or any(table[column].null_count for column in schema.names):
        raise UserError(f"{path}: damaged (columns {table.schema.names}, expected {schema.names}); {AGAIN}")
    if name in stats.sha256:
        check_files(root, {name: stats.sha256[name]}, AGAIN)
    return table


def _shard_length(path: Path, image_size: tuple[int, int]) -> int:
    """Number of images in a shard, from its header.

    Raises:
        UserError: Header, image size and file size do not agree.
    """
    try:
        with path.open("rb") as file:
            dtype, shape = read_npy_header(file)
            expected_bytes = file.tell() + int(np.prod(shape)) * dtype.itemsize
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); run the prepare stage again") from None
    if shape[1:] != (*image_size, 3) or dtype != np.uint8:
        raise UserError(
            f"{path}: holds {dtype} {shape}, expected uint8 (k, {image_size[0]}, {image_size[1]}, 3); {AGAIN}"
        )
    if path.stat().st_size != expected_bytes:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes where its header says {expected_bytes}; run the prepare stage again"
        )
    return int(shape[0])
