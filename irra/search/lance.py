"""A gallery in a LanceDB database, on a disk or in a bucket."""

from contextlib import AbstractContextManager

from irra.search.gallery import Gallery
from irra.search.target import Target


class LanceGallery:
    """A `Gallery` in a LanceDB database."""

    @classmethod
    def open(cls, address: str) -> Gallery:
        """Open the database at `address`, which begins with `lance:`."""
        raise NotImplementedError


def open_lance(address: str) -> AbstractContextManager[Target]:
    """Open the database at `address` for writing, whether there is one yet or not."""
    raise NotImplementedError
