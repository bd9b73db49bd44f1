"""MLflow's SQLite database, which appears only when all of its tables are made.

MLflow makes the tables one by one in the database itself. A process that is killed meanwhile, or two that do so at
once, would leave a database that MLflow cannot open any more.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from irra.utils.errors import UserError
from irra.utils.files import check_regular_file, replace_file
from irra.utils.locks import lock_file, locked


def database_of(uri: str) -> Path | None:
    """Return the file of an SQLite store, or None for any other store."""
    path = uri.partition("?")[0].removeprefix("sqlite:///")
    return None if path in (uri, "", ":memory:") or path.startswith("file:") else Path(path).absolute()


def make_database(path: Path) -> None:
    """Make MLflow's tables in a new database; does nothing if there is a database already.

    Raises:
        UserError: Something else is in its place, which MLflow would try to open for minutes.
    """
    check_regular_file(path)
    if path.is_dir():
        raise UserError(f"{path}: a folder; move it away, and a new database is made")
    if _exists(path) and not lock_file(path).exists():  # the lock of a killed process is to be removed
        return
    with locked(path, wait=True):
        if not _exists(path):
            _remove_leftovers(path)
            with replace_file(path) as temporary:
                _make_tables(temporary, path.parent / "mlartifacts")


def check_complete(path: Path) -> None:
    """Check that the database at `path` is not one that an earlier version of this project left without all tables.

    Raises:
        UserError: Tables are missing. MLflow adds its first experiment only after the last table.
    """
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        try:
            used = connection.execute("SELECT 1 FROM experiments").fetchone()
        except sqlite3.OperationalError as error:  # either this table is missing, or the database cannot be read now
            used = "no such table" not in str(error)
        except sqlite3.DatabaseError:
            raise UserError(f"{path}: not an SQLite database; move it away, and a new one is made") from None
    if not used:
        raise UserError(
            f"{path}: the process that made this database was stopped before all tables were there; "
            "it holds no runs: delete it, and a new one is made"
        )


def _exists(path: Path) -> bool:
    """Whether there is a database; opening one that does not exist leaves an empty file."""
    return path.exists() and path.stat().st_size > 0


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed process left, also SQLite's journals, which would be applied to the new file."""
    for leftover in path.parent.glob(f"{path.name}.*tmp*"):
        leftover.unlink()


def _make_tables(path: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"sqlite:///{path}", artifacts.as_uri())
    store.engine.dispose()  # closes the file before it is renamed
