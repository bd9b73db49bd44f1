"""What the page offers to filter a gallery by, and how many results a condition leaves."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from irra.search.engine import plain
from irra.search.gallery import Gallery
from irra.search.tracks import TRACK, has_tracks
from irra.search.where import parse_condition

MAX_FILTERS = 50  # columns; a condition that is written by hand can use the others too
MAX_VALUES = 30  # that are offered one by one
MAX_VALUE_CHARACTERS = 80
SAMPLE = 10_000  # rows in which most columns of many values show more than MAX_VALUES
TYPES = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_integer, "integer"),
    (pa.types.is_floating, "number"),
    (pa.types.is_timestamp, "datetime"),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time"),
    (pa.types.is_string, "text"),
    (pa.types.is_large_string, "text"),
)


@dataclass(frozen=True)
class Counts:
    """Number of pictures that satisfy a condition, and of results among them: a track is one."""

    pictures: int
    results: int


def count_results(gallery: Gallery, where: str | None, every_frame: bool) -> Counts:
    """Count the results of any sentence under a condition.

    Raises:
        UserError: It is no condition on this gallery.
    """
    condition = None if where is None else parse_condition(where, gallery.columns)
    by_track = has_tracks(gallery) and not every_frame
    if not by_track:
        pictures = gallery.size if condition is None else len(gallery.table([], condition))
        return Counts(pictures, pictures)
    names = [
        name for name in ("source", TRACK) if name in gallery.columns.names
    ]  # tracks of two sources may be namesakes
    table = gallery.table(names, condition)
    followed = table.filter(pc.is_valid(table[TRACK]))
    tracks = followed.group_by(names).aggregate([])
    return Counts(len(table), len(table) - len(followed) + len(tracks))


def describe_filters(gallery: Gallery) -> list[dict[str, Any]]:
    """The columns of the metadata: `name`, how a condition writes it (`sql`), `type`, and `values` or `range`.

    `values` are those of a column of few, as text, with the number of pictures of each; null stands for no value.
    `range` is the smallest and the largest. Columns of text in many values have neither.
    """
    names = list(gallery.info.columns)[:MAX_FILTERS]
    return [
        {"name": name, "sql": written(name, gallery.columns), **describe_column(gallery.table([name])[name])}
        for name in names
    ]


def written(name: str, columns: pa.Schema) -> str:
    """A column's name as a condition must write it: in quotes if it would mean something else without."""
    quoted = '"' + name.replace('"', '""') + '"'
    try:
        plainly = parse_condition(f"{name} is null", columns).sql
    except ValueError:
        return quoted
    return name if plainly == parse_condition(f"{quoted} is null", columns).sql else quoted


def describe_column(column: pa.ChunkedArray) -> dict[str, Any]:
    """Type and values or range of one column."""
    kind = next((kind for is_kind, kind in TYPES if is_kind(column.type)), "other")
    values = few_values(column) if kind in ("boolean", "integer", "text") else None
    if values is not None:
        return {"type": kind, "values": values}
    if kind in ("integer", "number", "datetime", "date", "time"):
        return {"type": kind, "range": extent(column)}
    return {"type": kind}


def few_values(column: pa.ChunkedArray) -> list[dict[str, Any]] | None:
    """The values of a column with the pictures of each, as described; None if they are many, long or hardly repeat."""
    if len(column.slice(0, SAMPLE).unique()) > MAX_VALUES:
        return None
    counted = pc.value_counts(column)
    repeated = len(counted) <= len(column) / 2 or pa.types.is_boolean(column.type)
    if len(counted) > MAX_VALUES or not repeated:
        return None
    counts = dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
    known = sorted(value for value in counts if value is not None)
    texts = [str(value).lower() if isinstance(value, bool) else str(value) for value in known]
    if not known or max(map(len, texts)) > MAX_VALUE_CHARACTERS:
        return None
    described = [{"value": text, "count": counts[value]} for text, value in zip(texts, known, strict=True)]
    return described + [{"value": None, "count": counts[None]} for _ in range(None in counts)]


def extent(column: pa.ChunkedArray) -> list[Any] | None:
    """The smallest and the largest value, as JSON can hold them; None if there is no value."""
    if pa.types.is_floating(column.type):
        column = column.filter(pc.is_finite(column))
    ends = pc.min_max(column).as_py()
    return None if ends["min"] is None else [plain(ends["min"]), plain(ends["max"])]
