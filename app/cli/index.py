"""irra index: make the pictures of any folder searchable."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

from app.cli.console import MODEL_HELP, Document, check_output_folder, print_fields, printable
from components.layout import MODEL
from irra.utils.errors import UserError

MAX_SHOWN_SKIPPED = 10  # files; --json lists them all


def index(
    images: Annotated[
        str, typer.Option(metavar="FOLDER", help="Folder of pictures, searched recursively, or s3://...")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Index to create or update.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help=MODEL_HELP)] = str(MODEL),
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an index made with another model or folder, or with captions.")
    ] = False,
    captions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Captions of the pictures: a CSV file with the columns path (in the folder of pictures) and caption, "
            "or the folder of a dataset, whose imgs/ are the pictures.",
        ),
    ] = None,
) -> Document:
    """Make a folder of pictures searchable.

    If the index exists, only new and changed pictures are encoded, and deleted pictures are removed from it. Captions
    are there for `irra search --caption-weight`.

    Example: irra index --images photos --out photos-index
    """
    from irra.search.format import FILES

    check_apart(images, out)
    check_output_folder("--out", out, FILES)
    with local_folder(images) as (folder, source):
        from components.tracking.models import resolve_model
        from irra.checkpoint import load_model, model_fingerprint
        from irra.search.captions import read_captions
        from irra.search.encoder import Encoder
        from irra.search.update import index_folder
        from irra.utils.device import choose_device

        said, path = None if captions is None else read_captions(captions), resolve_model(model)
        encoder, known = Encoder(load_model(path).to(choose_device("auto"))), model_fingerprint(path)
        update = index_folder(folder, encoder, known, out, source=source, replace=replace, captions=said)
    return {
        "index": str(out),
        "pictures": update.info.size,
        "added": update.added,
        "kept": update.kept,
        "removed": update.removed,
        **({"forgotten": update.forgotten} if update.forgotten else {}),
        **({"described": update.info.described} if said is not None else {}),
        "skipped": update.skipped,
    }


def check_apart(images: str, out: Path) -> None:
    """Check that the index would neither replace the pictures nor lie among them.

    Raises:
        UserError: It would.
    """
    from components.s3.client import is_remote

    folder, target = Path(images).resolve(), out.resolve()
    if is_remote(images):
        return
    if folder == target or folder in target.parents or target in folder.parents:
        raise UserError(f"--out: {out} and --images {images} overlap; name another folder")


def print_update(answer: Document, stream: TextIO) -> None:
    """Print the number of pictures and what has changed, then the first skipped files with the reason."""
    skipped = answer["skipped"]
    print_fields({**answer, "skipped": len(skipped)}, stream)
    for item in skipped[:MAX_SHOWN_SKIPPED]:
        print(f"skipped  {printable(item['path'])}: {printable(item['reason'])}", file=stream)
    if len(skipped) > MAX_SHOWN_SKIPPED:
        print(f"skipped  {len(skipped) - MAX_SHOWN_SKIPPED:,} more; --json lists all of them", file=stream)


@contextmanager
def local_folder(images: str) -> Iterator[tuple[Path, str]]:
    """Yield a local folder with the pictures, and the name of their source; from S3, a copy that is deleted afterwards.

    Raises:
        UserError: There is no such folder.
    """
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
