"""JSON files of the project: what was written is read, and anything else is a message."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from irra.utils.errors import UserError
from irra.utils.files import hash_file
from irra.utils.records import CHECKSUM, parse_record, read_record, sealed, write_record


@dataclass(frozen=True)
class Fact:
    """A record with a part whose types do not matter."""

    name: str
    more: dict[str, object]


FACT = {"name": "é", "more": {"b": [1, 2.5, None], "a": True}}


def read(path: Path, sealed_only: bool = False) -> Fact:
    return read_record(path, Fact, "missing", "make it again", sealed_only=sealed_only)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_record(tmp_path / "a.json", FACT)
    assert vars(read(tmp_path / "a.json", sealed_only=True)) == FACT
    reordered = json.dumps(dict(reversed(sealed(FACT).items())))
    assert vars(parse_record(reordered, Fact, tmp_path, "", sealed_only=True)) == FACT
    assert sealed(sealed(FACT)) == sealed(FACT)


@pytest.mark.parametrize("change", [{"name": "e"}, {"more": {}}, {"extra": 1}, {CHECKSUM: "0"}, {CHECKSUM: None}])
def test_a_record_with_another_value_is_damaged(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(sealed(FACT) | change))
    with pytest.raises(UserError, match=r"a\.json: damaged \(its checksum is not that of its content\); make it again"):
        read(tmp_path / "a.json")


def test_a_record_of_an_earlier_version_is_read_unless_that_is_not_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(FACT))
    assert vars(read(tmp_path / "a.json")) == FACT
    with pytest.raises(UserError, match="damaged"):
        read(tmp_path / "a.json", sealed_only=True)


@pytest.mark.parametrize("more", ["9" * 5000, "[" * 500 + "]" * 500])
def test_what_json_cannot_hold_is_damaged(tmp_path: Path, more: str) -> None:
    (tmp_path / "a.json").write_text(f'{{"name": "", "more": {{"x": {more}}}}}')
    with pytest.raises(UserError, match=r"a\.json: damaged"):
        read(tmp_path / "a.json")


def test_a_pipe_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    for work in (read, hash_file):
        with pytest.raises(UserError, match=r"a\.json: not a regular file"):
            work(tmp_path / "a.json")
