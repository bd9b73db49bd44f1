"""Where an index is, by its address: a folder, or `lance:` and the address of a LanceDB database."""

from contextlib import AbstractContextManager
from pathlib import Path

from irra.search.gallery import Gallery
from irra.search.target import Target

LANCE = "lance:"  # before FOLDER or s3://BUCKET/PREFIX


def open_gallery(address: str | Path) -> Gallery:
    """Open an index for searching.

    Raises:
        UserError: It is missing, truncated, damaged or of another format version.
    """
    if is_lance(address):
        from irra.search.lance.gallery import LanceGallery

        return LanceGallery.open(str(address))
    from irra.search.folder import FolderGallery

    return FolderGallery.open(Path(address))


def open_target(address: str | Path) -> AbstractContextManager[Target]:
    """Open an index for writing, whether it is there yet or not.

    Raises:
        UserError: There is something else, or another process is writing the index.
    """
    if is_lance(address):
        from irra.search.lance.target import open_lance

        return open_lance(str(address))
    from irra.search.target import open_folder

    return open_folder(Path(address))


def is_lance(address: str | Path) -> bool:
    """Whether an index is kept in a LanceDB database."""
    return str(address).startswith(LANCE)
