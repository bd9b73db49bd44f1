"""The files of an index folder, and the metadata in its info.json.

info.json              format version, the model's fingerprint, sizes, skipped pictures, bytes and SHA-256 of the others
embeddings.npy         float16 or float32 (N, D), unit norm, one row per picture
entries.parquet        id, path, pid, file_bytes, modified_ns, sha256 (of the file), thumbnail_end: one row per picture
thumbnails.bin         N concatenated JPEGs at the model's image size
captions.parquet       text, one row per distinct caption                      (only in a gallery with captions)
caption_embeddings.npy like embeddings.npy, one row per distinct caption       (only in a gallery with captions)
described.npy          like embeddings.npy: the mean of the unit embeddings of each picture's own captions, zeros for a
                       picture without captions                        (only if pictures were indexed with captions)
neighbours.faiss       an approximate index of the embeddings by id            (only in a large gallery)
metadata.parquet       what is known of each picture: camera, time, ...        (only if pictures have metadata)

A picture keeps its id as long as it stays in the gallery, and the id is never reused; its row may change. Ids ascend
with the rows.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from irra.layout import INDEX_INFO
from irra.utils.errors import UserError
from irra.utils.records import check_files, read_record, write_record

FORMAT_VERSION = 1
EMBEDDINGS, ENTRIES, THUMBNAILS = "embeddings.npy", "entries.parquet", "thumbnails.bin"
CAPTIONS, CAPTION_EMBEDDINGS = "captions.parquet", "caption_embeddings.npy"
DESCRIBED, NEIGHBOURS, METADATA = "described.npy", "neighbours.faiss", "metadata.parquet"
FILES = (INDEX_INFO, EMBEDDINGS, ENTRIES, THUMBNAILS, CAPTIONS, CAPTION_EMBEDDINGS, DESCRIBED, NEIGHBOURS, METADATA)
EXACT, HNSW = "exact", "hnsw"  # kinds of search
AGAIN = "make the index again"

ENTRY_SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "path": pa.string(),
        "pid": pa.int64(),
        "file_bytes": pa.int64(),
        "modified_ns": pa.int64(),
        "sha256": pa.string(),
        "thumbnail_end": pa.int64(),
    }
)
CAPTION_SCHEMA = pa.schema({"text": pa.string()})


@dataclass(frozen=True)
class Info:
    """The contents of info.json.

    Attributes:
        model_fingerprint: SHA-256 of the model's weights.
        source: The dataset or folder that was indexed.
        image_size: Height and width of the thumbnails in pixels.
        size: Number of pictures.
        dimension, dtype: Of the embeddings.
        kind: How pictures are searched: `exact`, or approximately with `hnsw`.
        captions: Number of captions.
        next_id: Id of the next picture to be added.
        skipped: Path and reason of pictures that could not be used.
        file_bytes: Size of every other file, by name.
        sha256: Its SHA-256; empty in an index of an earlier version.
        described: Number of pictures that have captions of their own.
        columns: Names and Arrow types of the metadata.
        footage: What was read of each file of frames or video, by its path: `irra.footage.plan.Reading`.
        forgotten: What keeps pictures out that were made to be forgotten; see `irra.search.forgetting`.
    """

    format_version: int
    model_fingerprint: str
    source: str
    image_size: list[int]
    size: int
    dimension: int
    dtype: str
    kind: str
    captions: int
    next_id: int
    skipped: list[dict[str, str]]
    file_bytes: dict[str, int]
    sha256: dict[str, str] = field(default_factory=dict)
    described: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    footage: dict[str, str] = field(default_factory=dict)
    forgotten: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Version:
    format_version: int


def write_info(folder: Path, info: Info) -> None:
    """Write info.json, which is that of an earlier version where an index has nothing that came later."""
    later = {"described", "columns", "footage", "forgotten"}
    record = {name: value for name, value in asdict(info).items() if name not in later or value}
    write_record(folder / INDEX_INFO, record)


def read_info(folder: Path) -> Info:
    """Read info.json, and check the sizes of the other files against it.

    Raises:
        UserError: The folder is not an index, has another format version, or is incomplete or truncated.
    """
    path = folder / INDEX_INFO
    missing = f"{folder}: no index of pictures (no {INDEX_INFO}); make one with `irra index` or `dvc repro index`"
    version = read_record(path, _Version, missing, AGAIN).format_version
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: format version {version}, this code reads {FORMAT_VERSION}; {AGAIN}")
    info = read_record(path, Info, missing, AGAIN)
    if not _is_whole(info):
        raise UserError(f"{path}: damaged; {AGAIN}")
    for name, expected in info.file_bytes.items():
        _check_bytes(folder / name, expected)
    return info


def verify_index(folder: Path) -> int:
    """Check the SHA-256 of every file; returns how many there are, 0 for an index of an earlier version.

    Raises:
        UserError: The folder is not an index, or a file is missing or damaged.
    """
    info = read_info(folder)
    check_files(folder, info.sha256, AGAIN)
    return len(info.sha256)


def check_target(target: Path) -> None:
    """Check that `target` is new, empty, or holds only the files of an index, so that it may be replaced.

    Raises:
        UserError: It holds something else.
    """
    found = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if target.is_file() or (found and not {INDEX_INFO} <= found <= set(FILES)):
        raise UserError(f"{target}: exists and is not an index of pictures; name another folder, or remove it first")


def check_described(address: str | Path, info: Info) -> None:
    """Check that the pictures of an index have captions of their own, which can be given a weight.

    Raises:
        UserError: None has.
    """
    if not info.described:
        raise UserError(
            f"{address}: its pictures have no captions to give a weight; index them again with --captions FILE"
        )


def _is_whole(info: Info) -> bool:
    """Whether it lists exactly the files of such an index."""
    captions = {CAPTIONS, CAPTION_EMBEDDINGS} if info.captions else set()
    graph = {NEIGHBOURS} if info.kind == HNSW else set()
    described = {DESCRIBED} if info.described else set()
    metadata = {METADATA} if info.columns else set()
    names = {EMBEDDINGS, ENTRIES, THUMBNAILS} | captions | graph | described | metadata
    return info.file_bytes.keys() == names and info.sha256.keys() in (names, set()) and len(info.image_size) == 2


def _check_bytes(path: Path, expected: int) -> None:
    if not path.is_file():
        raise UserError(f"{path}: missing; {AGAIN}")
    if path.stat().st_size != expected:
        raise UserError(f"{path}: {path.stat().st_size} bytes where {INDEX_INFO} says {expected}; {AGAIN}")
