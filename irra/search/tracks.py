"""The same person in consecutive frames as one result: the best picture of each track."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from irra.search.gallery import Gallery, Rows, Scores
from irra.search.where import one_of

TRACK = "track"  # the column of the metadata; null for a picture of its own
MOMENTS = ("time", "seconds", "frame")  # columns that say when; the first that has values counts


@dataclass(frozen=True)
class Span:
    """How long a track lasts: its number of pictures, and its first and last moment in `column`."""

    pictures: int
    column: str
    first: Any
    last: Any


def has_tracks(gallery: Gallery) -> bool:
    """Whether it has tracks of text and when they were; otherwise, a column called `track` is one like others."""
    names = gallery.columns.names
    is_named = TRACK in names and pa.types.is_string(gallery.columns.field(TRACK).type)
    return is_named and any(name in names for name in MOMENTS)


def best_of_tracks(
    gallery: Gallery, search: Callable[[int], tuple[Scores, Rows]], top_k: int
) -> tuple[list[float], list[int]]:
    """Scores and rows of the `top_k` best pictures, of each track only the best.

    `search` finds that many best pictures for one query: scores and rows (1, K). It is asked for more until there are
    enough.
    """
    count, columns = 4 * top_k, [name for name in ("source", TRACK) if name in gallery.columns.names]
    while True:
        scores, rows = (found[0].tolist() for found in search(count))
        first = first_of_tracks([_key(known) for known in gallery.metadata(rows, columns)])[:top_k]
        if len(first) == top_k or len(rows) < count:
            return [scores[i] for i in first], [rows[i] for i in first]
        count *= 4


def first_of_tracks(tracks: Sequence[Any | None]) -> list[int]:
    """Positions of the first picture of each track, and of all pictures without one."""
    seen: set[Any] = set()
    first = []
    for position, track in enumerate(tracks):
        if track is None or track not in seen:
            first.append(position)
        seen.add(track)
    return first


def spans(gallery: Gallery, known: Sequence[dict[str, Any]]) -> list[Span | None]:
    """How long the track of each picture lasts, by its metadata; None for a picture that is alone in its track."""
    tracks = {str(one[TRACK]) for one in known if one[TRACK] is not None}
    if not tracks:
        return [None] * len(known)
    names = [name for name in (TRACK, "source", *MOMENTS) if name in gallery.columns.names]
    rows = gallery.table(names, one_of(gallery.columns.field(TRACK), sorted(tracks))).to_pylist()
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_key(row), []).append(row)
    return [None if one[TRACK] is None else _span(groups[_key(one)]) for one in known]


def _span(pictures: list[dict[str, Any]]) -> Span | None:
    for column in MOMENTS if len(pictures) > 1 else ():
        moments = [picture[column] for picture in pictures if picture.get(column) is not None]
        if moments:
            return Span(len(pictures), column, min(moments), max(moments))
    return None


def _key(known: dict[str, Any]) -> Any | None:
    """What pictures of one track share; sources may have files, and so tracks, of equal names."""
    return None if known[TRACK] is None else (known.get("source"), known[TRACK])
