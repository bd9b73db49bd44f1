"""irra search: find the pictures that a sentence describes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from app.cli.console import MODEL_HELP, Document, all_of, check_output_file, printable
from components.layout import INDEX, MODEL
from irra.utils.errors import UserError
from irra.utils.files import check_regular_file

if TYPE_CHECKING:
    from irra.search.engine import Hit, SearchEngine

MAX_SHEET_QUERIES = 20
COLUMNS = {"rank": "rank", "score": "score", "pid": "person", "path": "path"}
BOX = {"x", "y", "width", "height"}  # of people in frames, whose path says all of what follows
SAID_BY_PATH = BOX | {"file", "frame", "seconds", "track"}


def search(
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", show_default=False, help="A description, in quotes.")
    ] = None,
    queries: Annotated[
        str | None, typer.Option(metavar="FILE", help="File with one query per line; - is standard input.")
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of pictures.")] = 10,
    index: Annotated[
        str,
        typer.Option(
            metavar="INDEX", help="Index to search, made by `dvc repro` or `irra index`: a folder or lance:..."
        ),
    ] = str(INDEX),
    model: Annotated[str, typer.Option(metavar="MODEL", help=MODEL_HELP)] = str(MODEL),
    sheet: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw each query with its ten best pictures.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Draw why they were found: words, heat maps.")] = False,
    also_says: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SENTENCE", help="Another sentence about the same person, as often as you like; their mean counts."
        ),
    ] = None,
    caption_weight: Annotated[
        float,
        typer.Option(
            metavar="W", min=0.0, max=1.0, help="Weight of the pictures' captions, if the index was made with some."
        ),
    ] = 0.0,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            show_default=False,
            help="Only pictures whose metadata satisfy it: \"camera in (3, 4) and time >= '2026-11-27 18:00'\".",
        ),
    ] = None,
    every_frame: Annotated[
        bool, typer.Option("--every-frame", help="Show every picture of a person who was followed, not only the best.")
    ] = False,
) -> Document:
    """Find the pictures that a sentence describes.

    Example: irra search "a woman in a red coat" --top 5 --sheet out.png
    """
    named = named_queries(query, queries)
    if sheet is not None:
        check_sheet(sheet, len(named))
    elif explain:
        raise UserError("--explain draws on a sheet; name one with --sheet")
    others = also_says or []
    check_options(query, others, caption_weight, explain)
    condition = all_of(where or [])
    check_index(index, caption_weight, condition)
    from components.tracking.models import resolve_model
    from irra.search.engine import SearchEngine, clean_query

    texts = [clean_query(text, name) for name, text in named.items()]
    more = {f"--also-says {number}": clean_query(text, "--also-says") for number, text in enumerate(others, 1)}
    engine = SearchEngine.open(resolve_model(model), index)
    queries_said = [[text, *more.values()] for text in texts]
    rankings = search_all(engine, queries_said, top, caption_weight, condition, every_frame)
    unread = [engine.unread(text) for text in (*texts, *more.values())]
    warn_of_unread([*named, *more], unread)
    settings = with_captions(list(more.values()), caption_weight) | ({} if condition is None else {"where": condition})
    if not any(rankings):  # of the condition, which is that of all queries, or at all: a first writer was killed
        undrawn = "" if sheet is None else f"; {sheet} is not drawn"
        none = (
            "no pictures in the index"
            if condition is None
            else f"no picture satisfies the condition: {printable(condition)}"
        )
        print(f"{none}{undrawn}", file=sys.stderr)
    elif sheet is not None:
        draw(sheet, engine, [titled(text, settings) for text in texts], rankings, explain)
    results = [
        {"query": text, **settings, "unread": rest, "hits": [hit.document() for hit in hits]}
        for text, rest, hits in zip(texts, unread[: len(texts)], rankings, strict=True)
    ]
    return {"index": index, "source": engine.gallery.info.source, "results": results}


def check_index(index: str, caption_weight: float, where: str | None) -> None:
    """Check the index, and the condition on its metadata, before torch loads, which takes seconds.

    Raises:
        UserError: It cannot be searched so.
    """
    from irra.search.address import is_lance, open_gallery
    from irra.search.format import check_described, read_info

    if where is None and not is_lance(index):
        info = read_info(Path(index))
    else:
        from irra.search.where import parse_condition

        gallery = open_gallery(index)
        info = gallery.info
        if where is not None:
            parse_condition(where, gallery.columns)
    if caption_weight:
        check_described(index, info)


def titled(query: str, settings: Document) -> str:
    """A query and what else decided which pictures were found."""
    said = [settings["with_captions"]] if "with_captions" in settings else []
    said += [f"where {settings['where']}"] if "where" in settings else []
    return f"{query} ({', '.join(said)})" if said else query


def warn_of_unread(names: list[str], unread: list[str]) -> None:
    """Print which of the texts with these `names` the model has not read to the end."""
    for name, rest in zip(names, unread, strict=True):
        if rest:
            print(f"warning: {name} is longer than the model can read; not read: {printable(rest)}", file=sys.stderr)


def draw(sheet: Path, engine: "SearchEngine", titles: list[str], rankings: list[list["Hit"]], explain: bool) -> None:
    """Draw each query with its pictures, and perhaps why they were found."""
    from app.cli.sheet import draw_explanations, draw_results

    (draw_explanations if explain else draw_results)(sheet, engine, titles, rankings)
    print(f"drawn: {sheet}")


def check_options(query: str | None, others: list[str], caption_weight: float, explain: bool) -> None:
    """Check that options about captions fit the others.

    Raises:
        UserError: They do not.
    """
    if others and query is None:
        raise UserError("--also-says: adds to one query in quotes; a file of queries has one sentence for each")
    if explain and (others or caption_weight):
        raise UserError("--explain: explains one sentence and the pictures alone; leave out --also-says and captions")


def with_captions(others: list[str], caption_weight: float) -> Document:
    """What captions have added to a result, for its document; nothing if they have added nothing."""
    says = [f"mean of {1 + len(others)} sentences"] if others else []
    if caption_weight:
        says.append(f"captions of the pictures weigh {caption_weight:g}")
    settings = {"also_says": others, "caption_weight": caption_weight}
    return {"with_captions": ", ".join(says), **settings} if says else {}


def search_all(
    engine: "SearchEngine",
    queries: list[list[str]],
    top: int,
    caption_weight: float,
    where: str | None,
    every_frame: bool,
) -> list[list["Hit"]]:
    """Find the best pictures for each query of one or several sentences, with a progress bar for several batches."""
    from irra.search.engine import BATCH
    from irra.utils.progress import progress

    starts = range(0, len(queries), BATCH)
    batches = progress(starts, "search", len(starts), "batches") if len(starts) > 1 else starts
    return [
        hits
        for start in batches
        for hits in engine.search(queries[start : start + BATCH], top, caption_weight, where, every_frame)
    ]


def named_queries(query: str | None, source: str | None) -> dict[str, str]:
    """Return the queries by the names that messages use for them.

    Every line of a file is a query, so that results correspond to lines. A blank line is not skipped; it is refused
    later, like any other empty query.

    Raises:
        UserError: Not exactly one of `query` and `source` is given, or the source cannot be read or is empty.
    """
    if (query is None) == (source is None):
        raise UserError("give one query in quotes, or a file of them with --queries")
    if query is not None:
        return {"the query": query}
    assert source is not None
    name = "standard input" if source == "-" else source
    lines = read_text(source, name).removesuffix("\n").split("\n")
    if lines == [""]:
        raise UserError(f"{name}: no query in it")
    return {f"{name}: line {number}": line for number, line in enumerate(lines, 1)}


def read_text(source: str, name: str) -> str:
    """Read a text file, or standard input for `-`.

    Raises:
        UserError: There is no such file, or it is not UTF-8 text.
    """
    if source != "-":
        check_regular_file(Path(source))
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{name}: a folder; give a text file with one query a line") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def check_sheet(path: Path, queries: int) -> None:
    """Check that the sheet can be written and would not be too large to look at.

    Raises:
        UserError: It cannot, or it would.
    """
    check_output_file("--sheet", path, ".png")
    if queries > MAX_SHEET_QUERIES:
        raise UserError(f"--sheet: draws at most {MAX_SHEET_QUERIES} queries, but there are {queries}")


def print_hits(answer: Document, stream: TextIO) -> None:
    """Print a table for every query, ruled on a terminal and tab-separated elsewhere; several tables have titles."""
    results = answer["results"]
    for number, result in enumerate(results):
        if number:
            print(file=stream)
        title = titled(result["query"], result)
        shown = printable(title) if len(results) > 1 or title != result["query"] else None
        hits = result["hits"]
        known = any(hit["pid"] is not None for hit in hits)
        names = [name for name in COLUMNS if name != "pid" or known]
        more = metadata_names(hits)
        rows = [[*(_cell(hit[name]) for name in names), *(_known(hit, name) for name in more)] for hit in hits]
        (print_ruled if stream.isatty() else print_plain)(shown, [COLUMNS[name] for name in names] + more, rows, stream)


def metadata_names(hits: list[Document]) -> list[str]:
    """The columns of the metadata that have values; of people in frames, without what their paths say."""
    known = [hit.get("metadata", {}) for hit in hits]
    names = [name for name in (known[0] if known else {}) if any(one[name] is not None for one in known)]
    lasting = {hit["span"]["column"] for hit in hits if "span" in hit}
    return [name for name in names if not set(names) >= BOX or name not in SAID_BY_PATH or name in lasting]


def print_plain(title: str | None, names: list[str], rows: list[list[str]], stream: TextIO) -> None:
    """Print lines of tab-separated cells, for cut and awk."""
    if title is not None:
        print(title, file=stream)
    for row in [names, *rows]:
        print("\t".join(row), file=stream)


def print_ruled(title: str | None, names: list[str], rows: list[list[str]], stream: TextIO) -> None:
    """Print a table that is as wide as needed; paths that do not fit into the terminal are wrapped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in names:
        table.add_column(name, justify="right" if name in ("rank", "score", "person") else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(file=stream, markup=False, emoji=False, highlight=False).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else printable(str(value))


def _known(hit: Document, name: str) -> str:
    """A value of a hit's metadata, or how long its track lasts."""
    span = hit.get("span")
    if span and span["column"] == name and span["pictures"] > 1:
        return f"{_value(span['first'])} - {_value(span['last'])} ({span['pictures']} pictures)"
    return _value(hit["metadata"][name])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else _cell(value)
