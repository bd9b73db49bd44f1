"""Code shared by the commands: exit statuses, output for people and for scripts, checks of output paths."""

import functools
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from irra.utils.errors import UserError
from irra.utils.nested import flatten

Document = dict[str, Any]  # a command's answer: anything that JSON can hold

MODEL_HELP = "Model folder, or an MLflow address such as models:/irra@champion."
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]


def print_fields(document: Document, stream: TextIO) -> None:
    """Print a line for every value that is not None; names of nested values are joined by spaces."""
    rows = [(name.replace("_", " "), value) for name, value in flatten(document, " ").items() if value is not None]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {_formatted(value)}", file=stream)


def command(
    work: Callable[..., Document], show: Callable[[Document, TextIO], None] = print_fields
) -> Callable[..., None]:
    """Turn `work` into a command with the option --json, which prints its answer as JSON instead of with `show`.

    Errors and signals end it like a stage (see `guarded`). Only the answer goes to standard output; what libraries
    print in the meantime goes to standard error.
    """

    @functools.wraps(work)
    def run(as_json: bool, **options: Any) -> None:
        from components.stage import guarded  # this import takes a third of a second

        def answer() -> None:
            with redirect_stdout(sys.stderr):
                document = work(**options)
            if as_json:
                print(json.dumps(document, indent=2, allow_nan=False))  # in ASCII, which works in any terminal
            else:
                show(document, sys.stdout)
            sys.stdout.flush()

        raise typer.Exit(guarded(answer))

    signature = inspect.signature(work)
    option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    return run


def _formatted(value: Any) -> str:
    match value:
        case list():
            return (" x " if all(isinstance(item, int) for item in value) else ", ").join(map(_formatted, value))
        case float():
            return f"{value:.4g}"
        case bool() | str():
            return printable(str(value))
        case _:
            return f"{value:,}"


def printable(text: str) -> str:
    """Put `text` on one line, with escapes for tabs, line breaks, terminal controls and broken characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def all_of(conditions: Sequence[str]) -> str | None:
    """One condition from those that were given, all of which must hold; None if there is none."""
    if len(conditions) < 2:
        return conditions[0] if conditions else None
    return " and ".join(f"({condition})" for condition in conditions)


def check_output_file(option: str, path: Path, suffix: str) -> None:
    """Check beforehand, as far as possible, that a file with the given suffix can be written at `path`.

    Raises:
        UserError: It cannot; the message names `option`.
    """
    if path.suffix.lower() != suffix:
        raise UserError(f"{option}: {path} does not end in {suffix}")
    if path.is_dir():
        raise UserError(f"{option}: {path} is a folder; name a file in it")
    _check_parents(option, path)


def check_output_folder(option: str, path: Path, names: Sequence[str]) -> None:
    """Check that the output folder `path` is new, empty, or an earlier output.

    An earlier output contains no files other than `names`, and at least the first of these.

    Raises:
        UserError: It is none of these; the message names `option`.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{option}: {path} is a file; name a folder")
    existing = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    lost = existing.difference(names) if names[0] in existing else existing
    if lost:
        raise UserError(
            f"{option}: {path} holds other files, which would be lost ({printable(min(lost))}); name a new folder"
        )
    _check_parents(option, path)


def _check_parents(option: str, path: Path) -> None:
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise UserError(f"{option}: {path} cannot be written, since {nearest} is a file")
