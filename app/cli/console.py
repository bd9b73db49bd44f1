"""What the commands share: exit statuses, answers for people and for scripts, checks of where output goes."""

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

Document = dict[str, Any]  # what a command answers: anything that JSON holds

MODEL_HELP = "Model folder, or an MLflow address such as models:/irra@champion."
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document, for scripts.")]


def print_facts(facts: Document, stream: TextIO) -> None:
    """A line for every fact that there is, its name in a column; names of nested ones behind those around them."""
    rows = [(name.replace("_", " "), value) for name, value in flatten(facts, " ").items() if value is not None]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {_shown(value)}", file=stream)


def command(
    work: Callable[..., Document], show: Callable[[Document, TextIO], None] = print_facts
) -> Callable[..., None]:
    """`work` as a command that shows its answer, or prints it as JSON: every command has that option.

    Mistakes, full disks and signals end it by the rules of the stages. Standard output holds the answer alone: what
    libraries print on the way goes to standard error.
    """

    @functools.wraps(work)
    def run(as_json: bool, **options: Any) -> None:
        from components.stage import guarded  # takes a third of a second

        def answer() -> None:
            with redirect_stdout(sys.stderr):
                document = work(**options)
            if as_json:
                print(json.dumps(document, indent=2, allow_nan=False))  # in ASCII, which survives any terminal
            else:
                show(document, sys.stdout)
            sys.stdout.flush()

        raise typer.Exit(guarded(answer))

    signature = inspect.signature(work)
    option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    return run


def _shown(value: Any) -> str:
    match value:
        case list():
            return (" x " if all(isinstance(item, int) for item in value) else ", ").join(map(_shown, value))
        case float():
            return f"{value:.4g}"
        case bool() | str():
            return printable(str(value))
        case _:
            return f"{value:,}"


def printable(text: str) -> str:
    """`text` on one line: tabs, line breaks, terminal controls and broken characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_output_file(option: str, path: Path, suffix: str) -> None:
    """UserError where no file with that suffix could be written at `path`, as far as can be seen beforehand."""
    if path.suffix.lower() != suffix:
        raise UserError(f"{option}: {path} does not end in {suffix}")
    if path.is_dir():
        raise UserError(f"{option}: {path} is a folder; name a file in it")
    _check_parents(option, path)


def check_output_folder(option: str, path: Path, names: Sequence[str]) -> None:
    """UserError unless the folder `path` is new, empty, or one to be replaced.

    Such a one holds nothing but files called `names`, and the first of these at least.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{option}: {path} is a file; name a folder")
    found = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    lost = found.difference(names) if names[0] in found else found
    if lost:
        raise UserError(
            f"{option}: {path} holds other files, which would be lost ({printable(min(lost))}); name a new folder"
        )
    _check_parents(option, path)


def _check_parents(option: str, path: Path) -> None:
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise UserError(f"{option}: {path} cannot be written, since {nearest} is a file")
