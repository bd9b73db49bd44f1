"""MLflow's database: made once, as a whole."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.tracking.database import database_of, make_database
from components.tracking.store import connect
from irra.utils.errors import UserError
from tests.imports import ROOT

pytestmark = pytest.mark.xdist_group("mlflow")
RUN = "from components.tracking.run import open_run\nwith open_run('train') as tracker: print(tracker.run_id)"


def start(folder: Path) -> subprocess.Popen[str]:
    """Open a run in another process, which prints its id."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_first_runs_at_once_all_get_their_run(tmp_path: Path) -> None:
    printed = {process.communicate(timeout=200)[0].strip() for process in [start(tmp_path) for _ in range(3)]}
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("irra").experiment_id])
    assert {run.info.run_id for run in runs} == printed


def size_of(file: Path) -> int:
    """Size of a file that may be gone by now, as SQLite's journals are."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_first_run_killed_while_it_makes_the_tables_stops_no_later_one(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        end = time.monotonic() + 100
        while not any(size_of(file) > 100_000 for file in tmp_path.glob("mlflow.db*")):
            assert time.monotonic() < end
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "mlflow.db").exists()
    assert connect(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db"]


def test_an_empty_database_is_made(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    assert connect(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()


@pytest.mark.parametrize(
    ("statement", "message"),
    [("CREATE TABLE runs (run_uuid TEXT)", "it holds no runs: delete it"), (None, "not an SQLite database; move")],
)
def test_a_database_without_its_tables_names_the_cure(tmp_path: Path, statement: str | None, message: str) -> None:
    path = tmp_path / "mlflow.db"
    if statement:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
    else:
        path.write_text("no database" * 100)
    with pytest.raises(UserError, match=message):
        connect(f"sqlite:///{path}")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////a b/mlflow.db?timeout=3", Path("/a b/mlflow.db")),
        ("sqlite:///mlflow.db", Path.cwd() / "mlflow.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql://there/db", None),
        ("http://there:5000", None),
    ],
)
def test_the_file_of_a_store(uri: str, path: Path | None) -> None:
    assert database_of(uri) == path


def test_the_lock_of_a_process_killed_just_after_making_the_tables_is_removed(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("tables")
    (tmp_path / ".mlflow.db.lock").touch()
    make_database(tmp_path / "mlflow.db")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(
    ("make", "message"), [(Path.mkdir, "a folder"), (os.mkfifo, "not a regular file")], ids=["folder", "pipe"]
)
def test_what_is_no_database_is_named_at_once(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "mlflow.db")
    with pytest.raises(UserError, match=rf"mlflow\.db: {message}"):
        connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
