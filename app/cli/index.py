"""irra index: the pictures of any folder, made searchable."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

from app.cli.console import MODEL_HELP, Document, check_output_folder, print_facts, printable
from components.layout import MODEL
from irra.utils.errors import UserError

SHOWN_SKIPPED = 10  # files left out that are named; --json names them all


def index(
    images: Annotated[str, typer.Option(metavar="FOLDER", help="Pictures, in this folder and below; or s3://.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Index to write, or to bring up to date.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help=MODEL_HELP)] = str(MODEL),
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where the index is of another model or of other pictures.")
    ] = False,
) -> Document:
    """Make a folder of pictures searchable.

    Where the index exists, only new and changed pictures are encoded, and those that are gone leave it.

    Example: irra index --images photos --out photos-index
    """
    from irra.search.format import FILES

    check_apart(images, out)
    check_output_folder("--out", out, FILES)
    with local_folder(images) as (folder, source):
        from components.tracking.models import resolve_model
        from irra.checkpoint import load_model, model_fingerprint
        from irra.search.build import index_folder
        from irra.search.encoder import Encoder
        from irra.utils.device import choose_device

        path = resolve_model(model)
        encoder = Encoder(load_model(path).to(choose_device("auto")))
        update = index_folder(folder, encoder, model_fingerprint(path), out, source=source, replace=replace)
    return {
        "index": str(out),
        "pictures": update.info.size,
        "added": update.added,
        "kept": update.kept,
        "removed": update.removed,
        "skipped": update.skipped,
    }


def check_apart(images: str, out: Path) -> None:
    """UserError where the index would replace the pictures, or lie among them."""
    from components.s3.client import is_remote

    folder, target = Path(images).resolve(), out.resolve()
    if is_remote(images):
        return
    if folder == target or folder in target.parents or target in folder.parents:
        raise UserError(f"--out: {out} and the pictures of --images {images} lie in each other; name another folder")


def print_update(answer: Document, stream: TextIO) -> None:
    """How many pictures there are and what has changed, then the first of those left out, with the reason."""
    skipped = answer["skipped"]
    print_facts({**answer, "skipped": len(skipped)}, stream)
    for item in skipped[:SHOWN_SKIPPED]:
        print(f"skipped  {printable(item['path'])}: {printable(item['reason'])}", file=stream)
    if len(skipped) > SHOWN_SKIPPED:
        print(f"skipped  {len(skipped) - SHOWN_SKIPPED:,} more, which --json names", file=stream)


@contextmanager
def local_folder(images: str) -> Iterator[tuple[Path, str]]:
    """The folder `images` and its name; of an address in S3 a copy, for as long as this lasts."""
    from components.s3.client import is_remote

    if is_remote(images):
        from components.s3.transfer import download

        with tempfile.TemporaryDirectory(prefix="irra-") as folder:
            download(images, Path(folder))
            yield Path(folder), images
    elif Path(images).is_dir():
        yield Path(images), str(Path(images).resolve())
    else:
        raise UserError(f"--images: {images}: no such folder")
