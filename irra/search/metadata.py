"""What is known of pictures beside their pixels: a table with a row for each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from irra.search.where import type_name
from irra.utils.errors import UserError, first_of
from irra.utils.files import check_regular_file

KEY = "key"  # the column with the path of the picture
RESERVED = ("path", "pid", "source", "row")  # what galleries have, or call the place of a picture
RESERVED_BEGINNINGS = ("irra_", "_")  # columns of galleries in LanceDB, and those of LanceDB
NOT_IN_NAMES = ".`"  # LanceDB has no such names
PARQUET = b"PAR1"  # how such a file begins
OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}  # by how a file begins


class Names(Sequence[str]):
    """Names that may be millions, of which few are read."""

    def __init__(self, names: pa.Array) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        found: str | list[str] = self._names[index].to_pylist() if isinstance(index, slice) else str(self._names[index])
        return found


@dataclass(frozen=True)
class Matched:
    """Pictures without a row, and keys of rows without a picture."""

    without_row: Sequence[str]
    without_picture: Sequence[str]


@dataclass(frozen=True)
class Metadata:
    """Metadata of pictures.

    Attributes:
        source: The file, for messages.
        keys: The paths of the pictures (N,), all different.
        table: A row for each of them.
    """

    source: str
    keys: pa.Array
    table: pa.Table

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self.table.schema

    def among(self, paths: Sequence[str]) -> "Metadata":
        """Only the rows of these pictures, since each `of` would look through all rows."""
        rows = pc.index_in(pa.array(paths, pa.string()), self.keys).drop_null()
        return Metadata(self.source, self.keys.take(rows), self.table.take(rows))

    def of(self, paths: Sequence[str]) -> pa.Table:
        """The rows of these pictures, in their order; nulls for pictures without a row."""
        return self.table.take(pa.array([self._rows.get(path) for path in paths], pa.int64()))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys.to_pylist())}

    def match(self, paths: Sequence[str]) -> Matched:
        """Which pictures have no row, and which rows no picture.

        Raises:
            UserError: No row is of a picture.
        """
        given = pa.array(paths, pa.string())
        without_row = Names(given.filter(pc.invert(pc.is_in(given, self.keys))))
        without_picture = Names(self.keys.filter(pc.invert(pc.is_in(self.keys, given))))
        if len(without_row) == len(paths):
            raise UserError(
                f"{self.source}: none of its keys is a picture: keys are {first_of(without_picture)}; "
                f"pictures are {first_of(without_row)}"
            )
        return Matched(without_row, without_picture)


def read_metadata(path: Path) -> Metadata:
    """Read metadata of pictures from a CSV or Parquet file, whose column `key` has the paths of the pictures.

    The types of a CSV file's columns are found from all of their values: whole and other numbers, true or false, dates,
    times of day, timestamps, which are in UTC if they are given with an offset, and texts. An empty value is none, and
    so is a number that is not finite. Timestamps have microseconds.

    Raises:
        UserError: There is no such table, or no or several rows for a key; or a name or a type cannot be one of a
            column.
    """
    table = _read_table(path)
    names = table.column_names
    _check_names(path, names)
    if not len(table):
        raise UserError(f"{path}: no rows in it")
    keys = _text(path, KEY, table[KEY]).combine_chunks()
    _check_keys(path, keys)
    known = {name: _usable(path, name, table[name]) for name in names if name != KEY}
    return Metadata(str(path), keys, pa.table(known))


def _read_table(path: Path) -> pa.Table:
    check_regular_file(path)
    first_line = b""
    try:
        with path.open("rb") as file:
            first_line = file.readline(4096)
        beginning = first_line[: len(PARQUET)]
        if beginning == PARQUET:
            return pq.ParquetFile(path).read()
        if encoding := OTHER_ENCODINGS.get(beginning[:2]):
            raise _not_utf8(path, encoding)
        return _read_csv(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; name a table in CSV or Parquet") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; name a table in CSV or Parquet") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            raise _not_utf8(path) from None
        if b";" in first_line and b"," not in first_line:  # as Excel writes it where the comma is decimal
            raise UserError(f"{path}: separated by semicolons; save it with commas, and numbers with points") from None
        raise UserError(f"{path}: not a table in CSV or Parquet ({' '.join(str(error).split())[:200]})") from None


def _read_csv(path: Path) -> pa.Table:
    # Values may have line breaks in them, and an empty one is none in a column of texts too
    conversion = csv.ConvertOptions(column_types={KEY: pa.string()}, null_values=[""], strings_can_be_null=True)
    parsing = csv.ParseOptions(newlines_in_values=True)
    table = csv.read_csv(path, parse_options=parsing, convert_options=conversion)
    if any(pa.types.is_binary(kind) for kind in table.schema.types):
        raise _not_utf8(path)
    return table.rename_columns([name.strip() for name in table.column_names])


def _not_utf8(path: Path, encoding: str = "LATIN1") -> UserError:
    found = "" if encoding == "LATIN1" else f" but {encoding}"
    return UserError(f"{path}: not UTF-8{found}; convert it: iconv -f {encoding} -t UTF-8 {path} > NEW")


def _check_names(path: Path, names: Sequence[str]) -> None:
    if KEY not in names:
        columns = ", ".join(names)[:500]
        raise UserError(f"{path}: no column {KEY}, which has the paths of the pictures; its columns are {columns}")
    for name in names:
        if not name:
            raise UserError(f"{path}: column {names.index(name) + 1} has no name; name it, or leave it out")
        if names.count(name) > 1:
            raise UserError(f"{path}: {names.count(name)} columns are called {name}; rename all but one")
        if name in RESERVED or name.startswith(RESERVED_BEGINNINGS):
            raise UserError(f"{path}: a column cannot be called {name}, which an index uses itself; rename it")
        if any(character in NOT_IN_NAMES or not character.isprintable() for character in name):
            raise UserError(f"{path}: a column cannot be called {name!r}; leave out dots, ` and what is not printed")
    if len(names) == 1:
        raise UserError(f"{path}: no column but {KEY}; add what is known of the pictures")


def _check_keys(path: Path, keys: pa.Array) -> None:
    if keys.null_count:
        rows = pc.indices_nonzero(keys.is_null()).cast(pa.string())
        raise UserError(f"{path}: no {KEY} in these rows, counted from 0: {first_of(Names(rows))}")
    if pc.count_distinct(keys).as_py() < len(keys):
        counts = pc.value_counts(keys)
        repeated = Names(counts.field("values").filter(pc.greater(counts.field("counts"), 1)))
        raise UserError(f"{path}: several rows for {first_of(repeated)}; keep one row a picture")


def _usable(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column with a type on which there are conditions."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if _is_text(kind) or pa.types.is_null(kind):
        return _text(path, name, column)
    if pa.types.is_boolean(kind) or pa.types.is_signed_integer(kind):
        return column
    try:
        if pa.types.is_unsigned_integer(kind):
            return column.cast(pa.int64())
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            numbers = column.cast(pa.float32() if kind in (pa.float16(), pa.float32()) else pa.float64())
            finite = pc.if_else(pc.is_finite(numbers), numbers, pa.scalar(None, numbers.type))
            return pc.add(finite, pa.scalar(0.0, numbers.type))  # -0.0 is 0.0
        if pa.types.is_date(kind):
            return column.cast(pa.date32())
        if pa.types.is_time(kind):
            return column.cast(pa.time64("us"), safe=False)
        if pa.types.is_timestamp(kind):
            return column.cast(pa.timestamp("us", tz=_known_zone(kind.tz)), safe=False)
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"{path}: column {name} ({kind}): {' '.join(str(error).split())[:200]}") from None
    raise UserError(
        f"{path}: column {name} is of the type {type_name(kind)}; use numbers, true and false, texts, dates or times"
    )


def _known_zone(zone: str | None) -> str | None:
    """A time zone that Python knows.

    Raises:
        ValueError: It does not.
    """
    try:
        if zone is not None:
            pa.lib.string_to_tzinfo(zone)
    except (LookupError, ValueError, OSError):
        raise ValueError(f"there is no time zone {zone}") from None
    return zone


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not _is_text(column.type) and not pa.types.is_null(column.type):
        raise UserError(f"{path}: column {name} is of the type {type_name(column.type)}, not of texts")
    return column.cast(pa.string())
