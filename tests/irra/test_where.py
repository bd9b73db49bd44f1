"""Conditions on metadata: SQLite as the reference of their meaning, LanceDB's rows, and what is refused."""

import random
import sqlite3
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from irra.search.where import MAX_CHARACTERS, one_of, parse_condition
from irra.utils.errors import UserError

WORDS = ["north", "North hall", "it's", "a%b", "a_b", "", "back\\slash", "two\nlines", "ß", "null"]
COLUMNS = pa.schema(
    {
        "row": pa.int64(),
        "path": pa.string(),
        "camera": pa.int64(),
        "level": pa.int8(),
        "score": pa.float64(),
        "sure": pa.float32(),
        "blurred": pa.bool_(),
        "day": pa.date32(),
        "time": pa.timestamp("us"),
        "at": pa.timestamp("us", tz="Europe/Berlin"),
        "hour": pa.time64("us"),
        "select": pa.int64(),
        "Two Words": pa.string(),
        'quo"te': pa.int64(),
        "größe": pa.int64(),
    }
)
START = datetime(2026, 10, 25)  # clocks go back that night


def value_of(kind: pa.DataType, rng: random.Random) -> Any:
    moment = START + timedelta(minutes=15 * rng.randrange(24))
    if pa.types.is_integer(kind):
        return rng.randrange(-3, 6)
    if pa.types.is_floating(kind):
        return rng.randrange(-8, 8) / 4
    if pa.types.is_boolean(kind):
        return rng.random() < 0.5
    if pa.types.is_string(kind):
        return rng.choice(WORDS)
    if pa.types.is_date(kind):
        return date(2026, 10, rng.randrange(20, 30))
    if pa.types.is_time(kind):
        return moment.time()
    return moment.replace(tzinfo=UTC) if kind.tz else moment


@pytest.fixture(scope="module")
def table() -> pa.Table:
    rng = random.Random(0)
    rows = [
        {field.name: value_of(field.type, rng) if rng.random() < 0.8 else None for field in COLUMNS} for _ in range(150)
    ]
    return pa.Table.from_pylist([row | {"row": i} for i, row in enumerate(rows)], schema=COLUMNS)


@pytest.fixture(scope="module")
def sqlite(table: pa.Table) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.execute("PRAGMA case_sensitive_like = on")
    database.execute("create table pictures (" + ", ".join(map(quoted, COLUMNS.names)) + ")")
    rows = [[plain(value) for value in row.values()] for row in table.to_pylist()]
    database.executemany(f"insert into pictures values ({', '.join('?' * len(COLUMNS))})", rows)
    return database


@pytest.fixture(scope="module")
def lance(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Any:
    import lancedb

    vectors = pa.array([[0.0, 1.0]] * len(table), pa.list_(pa.float32(), 2))
    database = lancedb.connect(tmp_path_factory.mktemp("lance"))
    return database.create_table("pictures", table.append_column("vector", vectors))


def plain(value: Any) -> Any:
    """A value as SQLite orders it: moments as texts, those with a zone in UTC."""
    match value:
        case datetime() if value.tzinfo:
            return value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
        case datetime():
            return value.isoformat(sep=" ", timespec="microseconds")
        case date() | time():
            return value.isoformat()
    return value


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(value: Any, for_sqlite: bool) -> str:
    if for_sqlite:
        value = plain(value)
    elif isinstance(value, datetime | date | time):
        value = value.isoformat()
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return repr(value) if isinstance(value, int | float) else "'" + value.replace("'", "''") + "'"


def random_condition(rng: random.Random, depth: int = 3) -> tuple[str, str]:
    """A condition for us, and the same one for SQLite."""
    if depth and rng.random() < 0.6:
        parts = [random_condition(rng, depth - 1) for _ in range(rng.randrange(1, 4))]
        if len(parts) == 1:
            return f"not ({parts[0][0]})", f"not ({parts[0][1]})"
        word = rng.choice([" and ", " or "])
        ours, theirs = zip(*parts, strict=True)
        return "(" + word.join(ours) + ")", "(" + word.join(theirs) + ")"
    field = rng.choice(list(COLUMNS)[1:])
    number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)

    def some() -> Any:
        if rng.random() < 0.05:
            return None
        if number and rng.random() < 0.2:
            return rng.choice([1.5, -0.25, 10**20, -(10**20), -(2**63), 2**63, 300, -0.0])
        return value_of(field.type, rng)

    def both(template: str, *values: Any) -> tuple[str, str]:
        ours, theirs = ([literal(value, for_sqlite) for value in values] for for_sqlite in (False, True))
        name = quoted(field.name)
        return template.format(name, *ours), template.format(name, *theirs)

    negated = rng.choice(["", "not "])
    boolean = pa.types.is_boolean(field.type)
    match rng.randrange(7):
        case 0:
            return both("{} is " + negated + "null")
        case 1:
            values = [some() for _ in range(rng.randrange(1, 5))]
            return both("{} " + negated + "in (" + ", ".join(["{}"] * len(values)) + ")", *values)
        case 2 if not boolean:
            return both("{} " + negated + "between {} and {}", some(), some())
        case 3 if pa.types.is_string(field.type):
            return both(
                "{} " + negated + "like {}", rng.choice(["n%", "%a_b%", "%", "_", "two%lines", "%ß", "N% hall"])
            )
        case 4 if boolean:
            return both(negated + "{}")
        case 5 if not boolean:
            symbol = rng.choice(["<", "<=", ">", ">="])
            return both(rng.choice([f"{{}} {symbol} {{}}", f"{{1}} {symbol} {{0}}"]), some())
        case _:
            return both(rng.choice(["{} = {}", "{} <> {}", "{} != {}", "{1} = {0}"]), some())


def rows_of(table: pa.Table, condition: str) -> list[int]:
    rows: list[int] = table.filter(parse_condition(condition, table.schema).expression)["row"].to_pylist()
    return rows


def rows_in(lance: Any, condition: str) -> list[int]:
    found = lance.search().where(parse_condition(condition, COLUMNS).sql).select(["row"]).to_arrow()
    return sorted(found["row"].to_pylist())


def test_a_condition_means_what_it_means_in_sql(table: pa.Table, sqlite: sqlite3.Connection, lance: Any) -> None:
    rng = random.Random(1)
    sizes = set()
    for number in range(200):
        ours, theirs = random_condition(rng)
        expected = [row for (row,) in sqlite.execute(f"select row from pictures where {theirs} order by row")]
        assert rows_of(table, ours) == expected, ours
        if number < 50:
            assert rows_in(lance, ours) == expected, ours
        sizes.add(len(expected))
    assert len(sizes) > 30  # they are not all or none of the rows


@pytest.mark.parametrize(
    "condition",
    [
        "path ilike '%NORTH%' or path ilike 'SS'",
        r"path like 'a\%b' or path like 'back\\%'",
        "at = '2026-10-25 02:30' or at in ('2026-10-25T02:30+02:00', '2026-10-25 01:00Z')",
        "time >= '2026-10-25 02' and time < timestamp '2026-10-25T03:00:00.5' or hour > time '01:00'",
        "day = date '2026-10-24' or cast('2026-10-25' as date) = day",
        'camera = "select" or time = time',
        "true",
        "not true or null",
        "CAMERA = 3 and SELECT not in (1, 2)",
        "sure = 0.25",
        "not (" * 12 + "camera = 1 or level = 1" + ")" * 12,
    ],
)
def test_what_sqlite_reads_otherwise_means_the_same_for_both(table: pa.Table, lance: Any, condition: str) -> None:
    assert rows_of(table, condition) == rows_in(lance, condition)


def test_moments_are_those_of_the_columns_zone_unless_they_have_their_own() -> None:
    utc = datetime(2026, 7, 1, 10, tzinfo=UTC)
    table = pa.table({"row": [0], "at": pa.array([utc], pa.timestamp("us", tz="Europe/Berlin"))})
    for text in ("2026-07-01 12:00", "2026-07-01T10:00Z", "2026-07-01 08:00-02:00"):
        assert rows_of(table, f"at = '{text}'") == [0]
    assert rows_of(table, "at = '2026-07-01 10:00'") == []
    assert rows_of(table, "at > '2026-07-01'") == [0]  # a date is its midnight


def test_columns_called_like_words_of_sql_need_no_quotation_marks() -> None:
    names = ["select", "from", "order", "date", "time", "timestamp", "case", "group", "key", "table", "end", "Camera"]
    table = pa.table({"row": [0, 1]} | {name: [0, 1] for name in names})
    for name in names:
        assert rows_of(table, f"{name} = 1 or {name} in (1)") == [1]
    dates = pa.table({"row": [0], "date": [date(2026, 1, 1)]})
    assert rows_of(dates, "date = date '2026-01-01' and date <= cast('2026-01-01' as date)") == [0]


def test_names_that_differ_in_case_must_be_exact() -> None:
    table = pa.table({"row": [0, 1], "camera": [0, 1], "CAMERA": [1, 0]})
    assert rows_of(table, "camera = 1") == [1]
    assert rows_of(table, "CAMERA = 1") == [0]
    with pytest.raises(UserError, match="Camera may be camera or CAMERA"):
        parse_condition("Camera = 1", table.schema)


def test_thousands_of_values_are_a_list(table: pa.Table, lance: Any) -> None:
    condition = "camera not in (" + ", ".join(str(value) for value in range(1, 3001)) + ")"
    rows = rows_of(table, condition)
    assert rows == rows_of(table, "camera < 1")
    assert rows == rows_in(lance, condition)


def test_values_need_not_be_text_that_a_condition_could_hold(table: pa.Table, lance: Any) -> None:
    paths = [path for path in table["path"].to_pylist() if path is not None][:3]
    condition = one_of(table.schema.field("path"), [*paths, "\0", "' or true --", "x" * MAX_CHARACTERS])
    expected = table.filter(pc.is_in(table["path"], pa.array(paths)))["row"].to_pylist()
    assert table.filter(condition.expression)["row"].to_pylist() == expected
    assert sorted(lance.search().where(condition.sql).to_arrow()["row"].to_pylist()) == expected


def test_values_in_a_condition_cannot_become_part_of_one(table: pa.Table, lance: Any) -> None:
    for value in ("' or true --", "\\' or true --", '" or true', "` or true"):
        condition = "path = '" + value.replace("'", "''") + "'"
        assert rows_of(table, condition) == rows_in(lance, condition) == []


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("camera = 'x'", "camera is a number (int64), but 'x' is a text"),
        ("path = 3", "path is a text, but 3 is a number"),
        ("path in ('a', 3)", "path is a text, but 3 is a number"),
        ("camera = true", "but true is a truth value"),
        ("blurred = 1", "blurred is true or false, but 1 is a number"),
        ("blurred > false", "neither is greater"),
        ("camera like 'x'", "`like` is for texts"),
        ("path like 3", "path is a text, but 3 is a number"),
        ("path like 'x\\'", "ends in \\"),
        ("path = date '2026-01-01'", "is a date"),
        ("score < 1e999", "too large for score"),
        ("score < 1e9999999", "too large for score"),
        ("camera = 1e99999999999999999999", "not a number that can be read"),
        ("time > 5", "time is a timestamp, but 5 is a number"),
        ("time > 'noon'", "time is a timestamp such as '2026-11-27 18:00', which 'noon' is not"),
        ("time > '2026-02-30'", "which '2026-02-30' is not"),
        ("time > '2026-11-27 18:00+01:00'", "without a time zone, but"),
        ("day = '2026-11-27 18:00'", "day is a date such as '2026-11-27'"),
        ("hour = '25:00'", "hour is a time of day such as '18:00'"),
        ("at > '0001-01-01'", "at is a timestamp in Europe/Berlin"),
        ("camera = score", "camera (int64) and score (double) are of two types"),
        ("path in (camera)", "camera is a column; a list has values"),
        ("cam = 3", "there is no column cam;"),
        ("a.b = 3", "there is no column a.b;"),
        ('path = "north"', "there is no column north (a text has single quotation marks: 'north')"),
        ("camera", "compare it with a value"),
        ("1 = 1", "name a column"),
        ("1 in (1)", "name a column"),
        ("1 is null", "is for columns"),
        ("'a' like 'b'", "`like` compares a column"),
        ("upper(path) = 'x'", "UPPER"),
        ("camera + 1 = 2", "is not possible"),
        ("camera in (table pictures)", "is not possible"),
        ("camera in ()", "is not possible"),
        ("camera is true", "is not possible"),
        ("camera = any(1)", "is not possible"),
        ("path like 'a!%' escape '!'", "is not possible"),
        ("try_cast('2026-01-01' as date) = day", "is not possible"),
        ("camera <=> 1", "is not possible"),
        ("path similar to 'x'", "is not possible"),
        ("camera = ?", "is not possible"),
        ("*", "is not possible"),
        ("camera = 1; camera = 2", "is not one condition"),
        ("camera = 1; drop table pictures", "cannot be read near 'drop'"),
        ("camera = 1)", "cannot be read near ')'"),
        ("camera =", "cannot be read"),
        ("path = 'x", "is a quotation mark missing?"),
        (" \n", "it is empty"),
        ("path = '\ud800'", "characters that are not text"),
        ("(" * 5000 + "camera = 1" + ")" * 5000, "nested too deeply"),
        ("not " * 5000 + "blurred", "nested too deeply"),
        ("camera = " + "(" * 200 + "1" + ")" * 200, "nested too deeply"),
        ("camera = 1 or (blurred and (" * 10 + "blurred" + "))" * 10, "nested too deeply"),
        (" or ".join(["camera = 1"] * 1001), "more than 1000 comparisons"),
        ("path = '" + "x" * 1_000_001 + "'", "more than the 1,000,000 allowed"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_condition_is_refused_with_the_columns_that_there_are(condition: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_condition(condition, COLUMNS)
    text = str(refused.value)
    assert message in text
    assert text.startswith('the condition "')
    assert "; columns: row (int64), path (text), camera (int64), level (int8), score (double)" in text
    assert "\n" not in text
    assert len(text) < 1000


def test_nothing_but_a_users_mistake_comes_out_of_any_text() -> None:
    rng = random.Random(2)
    words = "camera path time ( ) , ' \" = < > != in not and or is null like between 3 -1 'x' date case [ { ; . :: ? @"
    for _ in range(1500):
        text = " ".join(rng.choices(words.split(), k=rng.randrange(1, 9)))
        try:
            parse_condition(text, COLUMNS)
        except UserError:
            continue
