"""What is known of pictures beside their pixels: a table with a row for each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from irra.utils.errors import UserError, first_of

KEY = "key"  # the column with the path of the picture


@dataclass(frozen=True)
class Matched:
    """Pictures without a row, and keys of rows without a picture."""

    without_row: list[str]
    without_picture: list[str]


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

    def of(self, paths: Sequence[str]) -> pa.Table:
        """The rows of these pictures, in their order; nulls for pictures without a row."""
        return self.table.take(pc.index_in(pa.array(paths, pa.string()), self.keys))

    def match(self, paths: Sequence[str]) -> Matched:
        """Which pictures have no row, and which rows no picture.

        Raises:
            UserError: No row is of a picture.
        """
        given = pa.array(paths, pa.string())
        without_row = given.filter(pc.invert(pc.is_in(given, self.keys))).to_pylist()
        without_picture = self.keys.filter(pc.invert(pc.is_in(self.keys, given))).to_pylist()
        if len(without_row) == len(paths):
            raise UserError(
                f"{self.source}: none of its keys is a picture: keys are {first_of(without_picture)}; "
                f"pictures are {first_of(without_row)}"
            )
        return Matched(without_row, without_picture)


def read_metadata(path: Path) -> Metadata:
    """Read what is known of pictures from a CSV or Parquet file."""
    raise NotImplementedError
