"""Captions of pictures, which an index may hold beside the pictures."""

import csv
from pathlib import Path

from irra.data.layouts import read_annotations
from irra.search.engine import clean_query
from irra.utils.errors import UserError
from irra.utils.files import check_regular_file

COLUMNS = ("path", "caption")


def read_captions(source: Path) -> dict[str, list[str]]:
    """Captions of pictures by path: from a CSV file with the columns `path` and `caption`, a row for each caption.

    Or from the folder of a dataset, whose annotations name pictures by their paths in its folder `imgs`.

    Raises:
        UserError: There is no such file, or it is not such a table; or the annotations cannot be used.
    """
    if source.is_dir():
        return {record.path: list(record.captions) for record in read_annotations(source)}
    check_regular_file(source)
    captions: dict[str, list[str]] = {}
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                raise UserError(f"{source}: no columns {' and '.join(COLUMNS)} in its first line")
            for row in rows:
                path, caption = (row[name] or "" for name in COLUMNS)
                captions.setdefault(path, []).append(clean_query(caption, f"{source}: line {rows.line_num}"))
    except FileNotFoundError:
        raise UserError(f"{source}: no such file; name a CSV file, or the folder of a dataset") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{source}: not a table in CSV ({error})") from None
    if not captions:
        raise UserError(f"{source}: no caption in it")
    return captions
