"""irra forget: take pictures out of an index for good."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import Document, all_of, printable
from app.cli.search import read_text
from irra.utils.errors import UserError

if TYPE_CHECKING:
    from irra.search.forgetting import Choice
    from irra.search.gallery import Gallery

ELSEWHERE = "backups, DVC's cache, copies registered in MLflow"


def forget(
    index: Annotated[str, typer.Option(metavar="INDEX", help="Index folder, or address of a LanceDB gallery.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY...",
            show_default=False,
            help="Paths of pictures as results show them; or files of frames or video, with all people in them.",
        ),
    ] = None,
    key_file: Annotated[
        str | None, typer.Option("--keys", metavar="FILE", help="File with one key a line; - is standard input.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Forget all pictures that satisfy this, as in irra search."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where nobody can be asked.")] = False,
) -> Document:
    """Take pictures out of an index for good, and keep them out.

    Embedding, captions, metadata and thumbnail go, and `irra index` does not take the picture in again. The picture
    itself stays where it is.

    Example: irra forget cam3/000812.jpg --index gallery
    """
    wanted = read_keys(keys or [], key_file)
    if bool(wanted) == bool(where):
        raise UserError("give either the keys of the pictures to forget, or a condition with --where")
    from irra.search.address import open_gallery, open_target
    from irra.search.forgetting import Forgotten

    gallery = open_gallery(index)
    choice = chosen(gallery, wanted, all_of(where or []))
    count = len(choice.rows)
    if count:
        confirm(f"{count:,} of {gallery.size:,} pictures in {index}", yes)
    with open_target(index) as target:
        if open_gallery(index).version != gallery.version:
            raise UserError(f"{index}: was changed meanwhile; nothing was forgotten; run this again")
        forgotten = Forgotten.from_info(gallery.info).with_all(choice.paths)
        info = target.forget(gallery, choice.rows, forgotten.record())
    captions = gallery.info.captions - info.captions
    return {
        "index": index,
        "forgotten": count,
        "pictures": info.size,
        **({"captions_dropped": captions} if captions else {}),
        "not_touched": [f"the pictures themselves in {gallery.info.source}", ELSEWHERE],
    }


def chosen(gallery: "Gallery", keys: list[str], where: str | None) -> "Choice":
    """The pictures of these keys, or those that satisfy a condition.

    Raises:
        UserError: A key is unknown, the condition is not one, or no picture would be left.
    """
    from irra.search.forgetting import check_some_stay, named, satisfying
    from irra.search.where import parse_condition

    choice = named(gallery, keys) if where is None else satisfying(gallery, parse_condition(where, gallery.columns))
    check_some_stay(gallery, choice)
    return choice


def read_keys(keys: list[str], source: str | None) -> list[str]:
    """All keys, of the command line and of a file, whose blank lines are none.

    Raises:
        UserError: The file cannot be read, or has no key in it.
    """
    if source is None:
        return keys
    if Path(source).is_dir():
        raise UserError(f"--keys: {source} is a folder; give a text file with one key a line")
    lines = read_text(source, "standard input" if source == "-" else source).split("\n")
    more = [line.removesuffix("\r") for line in lines if line.strip()]
    if not more:
        raise UserError(f"--keys: {source} has no key in it; give one a line")
    return [*keys, *more]


def confirm(what: str, yes: bool) -> None:
    """Ask whether to forget `what`, unless that was answered before.

    Raises:
        UserError: No, or there is nobody to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"would forget {printable(what)}, which cannot be undone; give --yes to do it")
    if not typer.confirm(f"Forget {printable(what)}? This cannot be undone.", err=True):
        raise UserError("nothing was forgotten")
