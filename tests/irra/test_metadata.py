"""Metadata of pictures: what a table's columns become, which pictures its rows are of, and what is refused."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from irra.search.metadata import Metadata, read_metadata
from irra.utils.errors import UserError


def write(path: Path, content: str | bytes | pa.Table) -> Path:
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def column(tmp_path: Path, *values: str) -> tuple[str, list[Any]]:
    """Type and values of a column of a CSV file."""
    rows = "".join(f"{i}.png,{value}\n" for i, value in enumerate(values))
    table = read_metadata(write(tmp_path / "it.csv", "key,it\n" + rows)).table
    return str(table.schema.field("it").type), table["it"].to_pylist()


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (("3", "", "-4"), "int64", [3, None, -4]),
        (("003", "12"), "int64", [3, 12]),
        (("3", "0.5", "nan", "-inf"), "double", [3.0, 0.5, None, None]),
        (("true", "FALSE"), "bool", [True, False]),
        (("2026-11-27", ""), "date32[day]", [date(2026, 11, 27), None]),
        (("2026-11-27 18:00", "2026-11-28"), "timestamp[us]", [datetime(2026, 11, 27, 18), datetime(2026, 11, 28)]),
        (("2026-11-27T18:00:00.123456",), "timestamp[us]", [datetime(2026, 11, 27, 18, 0, 0, 123456)]),
        (("2026-11-27 18:00+01:00",), "timestamp[us, tz=UTC]", [datetime(2026, 11, 27, 17, tzinfo=UTC)]),
        (("18:00", "18:00:01"), "time64[us]", [time(18), time(18, 0, 1)]),
        (("north", "", '"two\nlines, ""quoted"""'), "string", ["north", None, 'two\nlines, "quoted"']),
        (("3", "NA"), "string", ["3", "NA"]),
        (("27.11.2026",), "string", ["27.11.2026"]),
        (("", ""), "string", [None, None]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_types_are_found_from_the_values(tmp_path: Path, values: tuple[str], kind: str, expected: list[Any]) -> None:
    assert column(tmp_path, *values) == (kind, expected)


def test_a_table_in_parquet_keeps_its_types_as_far_as_conditions_know_them(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 27, 18)
    columns = {
        "byte": pa.array([1], pa.int8()),
        "count": pa.array([7], pa.uint16()),
        "float": pa.array([0.5], pa.float32()),
        "half": pa.array([-0.0], pa.float32()).cast(pa.float16()),
        "decimal": pa.array([Decimal("1.25")]),
        "word": pa.array(["north"]).dictionary_encode(),
        "large": pa.array(["south"], pa.large_string()),
        "at": pa.array([moment.replace(tzinfo=UTC)], pa.timestamp("ns", "Europe/Berlin")),
        "time": pa.array([moment], pa.timestamp("ms")),
        "hour": pa.array([time(18)], pa.time32("s")),
    }
    keys = pa.array(["1.png"]).dictionary_encode()
    metadata = read_metadata(write(tmp_path / "it.parquet", pa.table({"key": keys} | columns)))
    assert metadata.keys.to_pylist() == ["1.png"]
    types = "int8 int64 float float double string string timestamp[us, tz=Europe/Berlin] timestamp[us] time64[us]"
    assert " ".join(str(kind).replace(", ", ",") for kind in metadata.schema.types) == types.replace(", ", ",")
    [row] = metadata.table.to_pylist()
    assert list(row.values()) == [1, 7, 0.5, 0.0, 1.25, "north", "south", moment.replace(tzinfo=UTC), moment, time(18)]
    assert str(row["half"]) == "0.0"


def test_a_table_may_have_a_byte_order_mark_and_any_names(tmp_path: Path) -> None:
    text = "\ufeffkey, select ,Two Words,größe\r\n./a/穿.png,1,2,3\r\n"
    metadata = read_metadata(write(tmp_path / "it.csv", text))
    assert metadata.schema.names == ["select", "Two Words", "größe"]
    assert metadata.keys.to_pylist() == ["./a/穿.png"]


def sightings(*keys: str) -> Metadata:
    return Metadata("it.csv", pa.array(keys), pa.table({"camera": list(range(len(keys)))}))


def test_each_picture_gets_its_row() -> None:
    metadata = sightings("b", "a", "c")
    assert metadata.of(["a", "x", "b"])["camera"].to_pylist() == [1, None, 0]
    assert metadata.of([]).schema == metadata.schema
    some = metadata.among(["x", "c", "b"])
    assert some.of(["b", "x", "c", "a"])["camera"].to_pylist() == [0, None, 2, None]


def test_pictures_without_a_row_and_rows_without_a_picture_are_named() -> None:
    matched = sightings("b", "a", "c").match(["a", "x", "y"])
    assert (list(matched.without_row), matched.without_picture[:5]) == (["x", "y"], ["b", "c"])
    assert (len(matched.without_picture), matched.without_picture[-1]) == (2, "c")


def test_metadata_of_other_pictures_are_refused() -> None:
    with pytest.raises(UserError, match=r"it.csv: none of its keys is a picture: keys are a, b; pictures are x"):
        sightings("a", "b").match(["x"])


TEXT = "key,camera\n1.png,3\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a table in CSV or Parquet (Empty CSV file)"),
        ("key,camera\n", "no rows in it"),
        ("key\n1.png\n", "no column but key"),
        ("file,camera\n1.png,3\n", "no column key, which has the paths of the pictures; its columns are file, camera"),
        ("key;camera\n1.png;3\n", "no column key, which has the paths of the pictures; its columns are key;camera"),
        (TEXT + ",4\n", "no key in these rows, counted from 0: 1"),
        (TEXT + "2.png,4\n1.png,3\n2.png,5\n", "several rows for 1.png, 2.png; keep one row a picture"),
        (TEXT + "2.png,4,5\n", "not a table in CSV or Parquet (CSV parse error: Expected 2 columns, got 3: 2.png,4,5)"),
        ("key,a,a\n1.png,3,4\n", "2 columns are called a"),
        ("key,a, a\n1.png,3,4\n", "2 columns are called a"),
        (",key,a\n0,1.png,3\n", "column 1 has no name"),
        ("key,path\n1.png,3\n", "a column cannot be called path"),
        ("key,row\n1.png,3\n", "a column cannot be called row"),
        ("key,irra_id\n1.png,3\n", "a column cannot be called irra_id"),
        ("key,_distance\n1.png,3\n", "a column cannot be called _distance"),
        ("key,box.x\n1.png,3\n", "a column cannot be called 'box.x'; leave out dots"),
        ('key,"a\nb"\n1.png,3\n', "a column cannot be called 'a\\nb'"),
        (TEXT.encode("utf-16"), "not UTF-8 but UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
        ("key,place\n1.png,Süd\n".encode("latin-1"), "not UTF-8; convert it: iconv -f LATIN1 -t UTF-8"),
        ("key,größe\n1.png,3\n".encode("latin-1"), "not UTF-8; convert it"),
        ("key,camera\nä.png,3\n".encode("latin-1"), "not UTF-8; convert it"),
        (b"PAR1 but nothing more", "not a table in CSV or Parquet"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8"),
        (pa.table({"key": ["a"], "box": [[1, 2]]}), "column box is of the type list"),
        (pa.table({"key": ["a"], "box": [{"x": 1}]}), "column box is of the type struct"),
        (pa.table({"key": ["a"], "image": [b"a"]}), "column image is of the type binary"),
        (pa.table({"key": [1], "camera": [3]}), "column key is of the type int64, not of texts"),
        (pa.table({"key": ["a"], "id": pa.array([2**63], pa.uint64())}), "column id (uint64): Integer value"),
        (pa.table({"key": ["a"], "at": pa.array([0], pa.timestamp("s", "Mars/Base"))}), "no time zone Mars/Base"),
        (pa.table([["a"], [1], [2]], ["key", "a", "a"]), "2 columns are called a"),
    ],
    ids=range(30),
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, content: str | bytes | pa.Table, message: str) -> None:
    with pytest.raises(UserError) as refused:
        read_metadata(write(tmp_path / "it.csv", content))
    assert str(refused.value).startswith(f"{tmp_path / 'it.csv'}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; name a table in CSV or Parquet"):
        read_metadata(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="a folder; name a table in CSV or Parquet"):
        read_metadata(tmp_path)
