"""Conditions on the metadata of pictures: one SQL expression, for the tables of pyarrow and for LanceDB."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Condition:
    """A condition that was checked against the columns of a gallery.

    Attributes:
        text: As it was given.
        expression: For `pyarrow.Table.filter` and datasets.
        sql: For LanceDB.
    """

    text: str
    expression: pc.Expression
    sql: str


def parse_condition(text: str, columns: pa.Schema) -> Condition:
    """Read a condition such as `camera in (3, 4) and time >= '2026-11-27 18:00'` on these columns.

    Raises:
        UserError: It is no condition, names a column that there is not, or compares one with a value of another type.
    """
    raise NotImplementedError
