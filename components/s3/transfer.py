"""Copy folders to and from S3: in parallel, verified, and resumable after a kill.

python -m components.s3.transfer upload data/raw/CUHK-PEDES s3://bucket/raw/CUHK-PEDES
python -m components.s3.transfer download s3://bucket/raw/CUHK-PEDES data/raw/CUHK-PEDES
"""

import argparse
import json
import shutil
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from components.s3.client import SHA256, THREADS, Object, RemoteFolder
from components.stage import guarded
from irra.utils.errors import UserError, first_of
from irra.utils.files import files_below, hash_file, remove_abandoned
from irra.utils.locks import locked
from irra.utils.progress import progress
from irra.utils.records import parse_record, sealed

MANIFEST = "irra-manifest.json"  # sizes and hashes of an uploaded folder, and whether the upload is complete

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Entry:
    """A file in a manifest."""

    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The contents of a manifest: whether the upload is complete, and its files by name."""

    complete: bool
    files: dict[str, Entry]


def upload(folder: Path, uri: str) -> None:
    """Copy all files of `folder` to `uri`, with a manifest that is marked complete only when all of them have arrived.

    Files that have already been uploaded are not sent again. Other objects at `uri` are kept, but the manifest does not
    list them.

    Raises:
        UserError: There are no files to upload, or S3 failed.
    """
    paths = {name: path for name, path in files_below(folder).items() if name != MANIFEST and not _is_unfinished(name)}
    if not paths:
        raise UserError(f"{folder}: no such folder, or it has no files to upload")
    remote = RemoteFolder(uri)
    existing = remote.list()

    def compare(name: str) -> tuple[str, Entry, bool]:
        entry = Entry(paths[name].stat().st_size, hash_file(paths[name]))
        same_size = name in existing and existing[name].size == entry.size
        return name, entry, same_size and remote.metadata(name).get(SHA256) == entry.sha256

    def send(name: str) -> None:
        with paths[name].open("rb") as file:
            remote.put(file, name, {SHA256: entries[name].sha256})

    compared = sorted(_in_parallel(compare, paths, "compare"))
    entries = {name: entry for name, entry, _ in compared}
    missing = [name for name, _, is_uploaded in compared if not is_uploaded]
    if missing:
        _write_manifest(remote, entries, complete=False)
    _in_parallel(send, missing, "upload")
    _write_manifest(remote, entries, complete=True)


def download(uri: str, folder: Path, *, mirror: bool = False) -> None:
    """Copy the objects under `uri` to `folder`; files that are already there and intact are not fetched again.

    A folder sent by `upload` is checked against its manifest, objects sent by other tools against S3's own metadata.
    With `mirror`, files of `folder` that do not exist at `uri` are removed.

    Raises:
        UserError: There are no objects, or an upload is incomplete; a key leads out of `folder`; the disk is too small;
            another process is writing `folder`; S3 failed.
    """
    remote = RemoteFolder(uri)
    objects, hashes = _contents(remote)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder to download to")
    with locked(folder):
        _fetch_missing(remote, objects, hashes, folder, mirror)


def _fetch_missing(
    remote: RemoteFolder, objects: dict[str, Object], hashes: dict[str, str], folder: Path, mirror: bool
) -> None:
    for path in list(folder.rglob("*")) if mirror else ():
        if path.is_file() and path.relative_to(folder).as_posix() not in objects:
            path.unlink()

    def compare(name: str) -> tuple[str, bool]:
        return name, objects[name].is_copied_to(folder / name, hashes.get(name))

    def fetch(name: str) -> None:
        remote.get(name, folder / name, hashes.get(name), tidy=False)

    missing = sorted(name for name, is_copied in _in_parallel(compare, objects, "compare") if not is_copied)
    for parent in {(folder / name).parent for name in missing}:
        if parent.is_dir():
            remove_abandoned(parent)
    _check_space(folder, sum(objects[name].size for name in missing))
    _in_parallel(fetch, missing, "download")


def _contents(remote: RemoteFolder) -> tuple[dict[str, Object], dict[str, str]]:
    """List the objects of a folder, and their SHA-256 if there is a manifest.

    Raises:
        UserError: The folder is empty or incomplete, or a key is not usable as a path.
    """
    objects = {name: entry for name, entry in remote.list().items() if not _is_unfinished(name)}
    if not objects:
        raise UserError(f"{remote.uri}: nothing is there")
    _check_names(remote.uri, objects)
    if MANIFEST not in objects:
        return objects, {}
    entries = _read_manifest(remote)
    wrong = [name for name in entries if name not in objects or objects[name].size != entries[name].size]
    if wrong:
        raise UserError(
            f"{remote.uri}: not what was uploaded: {first_of(wrong)} "
            f"of {len(entries)} files are missing or changed; run {_upload_command(remote)} to repair it"
        )
    return {name: objects[name] for name in entries}, {name: entry.sha256 for name, entry in entries.items()}


def _is_unfinished(name: str) -> bool:
    """Whether this is a temporary file, or one left behind by a kill: these are never copied."""
    return name.endswith(".tmp")


def _check_names(uri: str, names: Collection[str]) -> None:
    """Check that keys are paths inside a folder, and that none is the folder of another.

    Raises:
        UserError: One is not.
    """
    for name in names:
        if "\0" in name or {"", ".", ".."} & set(name.split("/")):
            raise UserError(f"{uri}: the key {name!r} leads out of the folder, or has an empty part; rename the object")
    for name in names:
        for parent in PurePosixPath(name).parents:
            if str(parent) in names:
                raise UserError(f"{uri}: {str(parent)!r} is both an object and the folder of {name!r}; rename one")


def _read_manifest(remote: RemoteFolder) -> dict[str, Entry]:
    cure = f"run {_upload_command(remote)} to replace it"
    manifest = parse_record(remote.read(MANIFEST), Manifest, f"{remote.uri}/{MANIFEST}", cure)
    if not manifest.complete:
        raise UserError(f"{remote.uri}: its upload has not finished; run {_upload_command(remote)} to resume it")
    return manifest.files


def _write_manifest(remote: RemoteFolder, entries: dict[str, Entry], *, complete: bool) -> None:
    manifest = sealed(asdict(Manifest(complete, entries)))
    remote.write(MANIFEST, json.dumps(manifest, indent=0, ensure_ascii=False).encode())


def _upload_command(remote: RemoteFolder) -> str:
    return f"`python -m components.s3.transfer upload FOLDER {remote.uri}`"


def _check_space(folder: Path, needed: int) -> None:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(f"{folder}: needs {needed / 1e9:.2f} GB, but the disk has {free / 1e9:.2f} GB left")


def _in_parallel(work: Callable[[T], R], items: Collection[T], description: str) -> list[R]:
    """Apply `work` to all items; results come in no particular order. The first failure cancels what has not begun."""
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in progress(as_completed(futures), description, len(futures), "files")]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m components.s3.transfer", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sending = commands.add_parser("upload", help="send a folder, and its manifest last")
    sending.add_argument("folder", type=Path)
    sending.add_argument("uri", help="such as s3://bucket/raw/CUHK-PEDES")
    fetching = commands.add_parser("download", help="fetch a folder; an interrupted transfer is resumed")
    fetching.add_argument("uri")
    fetching.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "upload":
        return guarded(lambda: upload(arguments.folder, arguments.uri))
    return guarded(lambda: download(arguments.uri, arguments.folder))


if __name__ == "__main__":
    raise SystemExit(main())
