"""The judgement of the campaigns of kills and outages: each check reports a doctored result."""

import http.server
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.hostile.kills import (
    REFUSED,
    WORKS,
    Run,
    champion_problem,
    difference,
    message_problem,
    read_runs,
    refusal_problem,
    runs_problem,
    torn,
    tree,
)
from tests.hostile.outages import Record, early_end_problem, lines_problem, read_record, record_problem
from tests.hostile.proxy import Outage, Proxy

EVALUATE = next(work for work in WORKS if work.name == "evaluate")
ROWS = frozenset({(1, 3.0), (2, 2.0)})
WHOLE = Run("FINISHED", ROWS)
SENT = Record("FINISHED", ROWS, True)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"a": "1", "b": "2"}, None),
        ({"a": "1"}, "missing: b"),
        ({"a": "1", "b": "2", "b.12345678.tmp": "3"}, "left over: b.12345678.tmp"),
        ({"a": "1", "b": "other"}, "other: b"),
    ],
)
def test_a_folder_that_differs_is_reported(found: dict[str, str], problem: str | None) -> None:
    assert difference({"a": "1", "b": "2"}, found) == problem


def test_a_tree_has_all_files_and_folders_but_those_of_the_store(tmp_path: Path) -> None:
    for name in ("data/index/a", "mlflow.db", "mlflow.db-journal", "mlartifacts/b", ".data.lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert set(tree(tmp_path)) == {"data", "data/index", "data/index/a", ".data.lock"}


def evaluated(*runs: str) -> dict[str, str]:
    """Files of evaluate, each written by one of the `runs`; "" for a missing one."""
    (group,) = EVALUATE.groups
    return {name: run for name, run in zip(group, runs, strict=True) if run}


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        (("old",) * 4, None),
        (("new",) * 4, None),
        (("", "new", "new", "old"), None),
        (("new", "old", "old", "old"), "are of two runs"),
        (("old", "old", "", "old"), "are of two runs"),
        (("new", "new", "half", "new"), "cmc.csv is neither the old nor the new one"),
    ],
)
def test_files_of_two_runs_are_reported(runs: tuple[str, ...], problem: str | None) -> None:
    found = torn(EVALUATE, evaluated(*["old"] * 4), evaluated(*["new"] * 4), evaluated(*runs))
    assert (found is None) if problem is None else problem in str(found)


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ([Run("KILLED", frozenset()), WHOLE], None),
        ([WHOLE, WHOLE], None),  # it was killed after its end
        ([Run("RUNNING", frozenset()), WHOLE], "left RUNNING"),
        ([Run("KILLED", frozenset({(1, 3.0)})), WHOLE], "a run KILLED with 1 rows"),
        ([Run("FINISHED", frozenset({(1, 3.0)}))], "with 1 rows instead of a run FINISHED with 2 rows"),
        ([Run("KILLED", ROWS)], "KILLED"),
        ([], "no run"),
    ],
)
def test_runs_that_are_not_as_undisturbed_are_reported(runs: list[Run], problem: str | None) -> None:
    found = runs_problem([WHOLE], runs)
    assert (found is None) if problem is None else problem in str(found)


REGISTRY = """
CREATE TABLE model_versions (version, status, source);
CREATE TABLE registered_model_aliases (alias, version);
CREATE TABLE logged_models (model_id, artifact_location, lifecycle_stage);
INSERT INTO model_versions VALUES (1, 'READY', 'models:/m-1');
INSERT INTO registered_model_aliases VALUES ('champion', 1);
"""


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("", None),
        ("DELETE FROM registered_model_aliases", "the aliases are []"),
        ("INSERT INTO model_versions VALUES (2, 'READY', 'models:/m-2')", "2 versions"),
        ("UPDATE model_versions SET status = 'PENDING'", "PENDING"),
        ("INSERT INTO logged_models VALUES ('m-2', '/nowhere', 'active')", "2 logged models"),
        ("UPDATE logged_models SET artifact_location = '/nowhere'", "no files"),
    ],
)
def test_a_champion_that_is_not_whole_is_reported(tmp_path: Path, change: str, problem: str | None) -> None:
    (tmp_path / "MLmodel").touch()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.executescript(REGISTRY)
        database.execute("INSERT INTO logged_models VALUES ('m-1', ?, 'active')", (tmp_path.as_uri(),))
        database.execute(change)
        database.commit()
    found = champion_problem(tmp_path)
    assert (found is None) if problem is None else problem in str(found)


REFUSAL = f"Running stage 'train':\nerror: checkpoints: process 7 since 2030-01-01 00:00:00{REFUSED}\nERROR: failed"


@pytest.mark.parametrize(
    ("printed", "clear"),
    [
        (REFUSAL, True),
        ("ERROR: failed to reproduce 'train'", False),
        (f"Traceback (most recent call last):\n{REFUSAL}", False),
        (f"{REFUSAL}\nerror: and another{REFUSED}", False),
    ],
)
def test_a_refusal_must_be_one_clear_line(printed: str, clear: bool) -> None:
    assert (refusal_problem(printed) is None) == clear


def test_a_traceback_is_reported() -> None:
    assert message_problem("epoch 1: R1 50.00") is None
    assert message_problem("Traceback (most recent call last):") is not None


DATABASE = """
CREATE TABLE experiments (experiment_id, name);
CREATE TABLE runs (run_uuid, status, experiment_id);
CREATE TABLE metrics (run_uuid, key, step, value);
CREATE TABLE logged_models (model_id, source_run_id, status);
INSERT INTO experiments VALUES (1, 'case');
INSERT INTO logged_models VALUES ('m', 'r', 2);
INSERT INTO runs VALUES ('r', 'FINISHED', 1);
INSERT INTO metrics VALUES ('r', 'loss/total', 1, 3.0), ('r', 'loss/total', 2, 2.0), ('r', 'other', 1, 1.0);
"""


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """The folder of a server that has got all of a training."""
    model = tmp_path / "served/1/models/m/artifacts/artifacts/model/weights.safetensors"
    model.parent.mkdir(parents=True)
    model.touch()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.executescript(DATABASE)
    return tmp_path


def test_what_a_server_has_got_is_read(server: Path) -> None:
    assert read_record(server, "case") == SENT
    assert read_runs(server) == [WHOLE]
    with closing(sqlite3.connect(server / "mlflow.db")) as database:
        database.execute("INSERT INTO runs VALUES ('s', 'KILLED', 1)")
        database.commit()
    assert read_record(server, "case").status == "2 runs"


@pytest.mark.parametrize(
    "found",
    [
        Record("RUNNING", ROWS, True),
        Record("FINISHED", frozenset({(1, 3.0)}), True),
        Record("FINISHED", ROWS | {(3, 1.0)}, True),
        Record("FINISHED", ROWS, False),
    ],
)
def test_a_record_with_something_lost_is_reported(found: Record) -> None:
    assert record_problem(SENT, found) is not None
    assert (early_end_problem(SENT, found) is None) == (found.status == "RUNNING")


def test_a_whole_record_is_clear() -> None:
    assert (record_problem(SENT, SENT), early_end_problem(SENT, SENT)) == (None, None)


@pytest.mark.parametrize(
    ("printed", "clear"),
    [
        ("epoch 1/3: 6/6 steps in 0.1 s\nwarning: MLflow at http://x: sending failed", True),
        ("Traceback (most recent call last):", False),
        ('  File "run.py", line 1, in <module>', False),
        ("WARNING urllib3.connectionpool: Retrying", False),
        ("warning: lost\n" * 5, False),
    ],
)
def test_lines_that_are_not_ours_and_many_messages_are_reported(printed: str, clear: bool) -> None:
    assert (lines_problem(printed) is None) == clear


# ---- the proxy ----


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def behind() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def ask(uri: str, path: str) -> str:
    try:
        with urllib.request.urlopen(f"{uri}/{path}", timeout=0.3) as answer:
            content: bytes = answer.read()
            return content.decode()
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        return str(error.__cause__ or error)


@pytest.mark.parametrize(
    ("kind", "at_once", "then"),
    [
        ("refuse", "Remote end closed", "Connection refused"),
        ("hang", "timed out", "timed out"),
        ("fail", "500", "500"),
    ],
)
def test_an_outage_begins_when_it_is_asked_for_and_ends(behind: int, kind: str, at_once: str, then: str) -> None:
    with Proxy(behind, Outage(kind, "rows")) as proxy:
        assert (ask(proxy.uri, "runs"), proxy.happened) == ("hello", False)
        assert at_once in ask(proxy.uri, "rows")
        assert then in ask(proxy.uri, "runs")
        proxy.mend()
        assert (ask(proxy.uri, "rows"), proxy.happened) == ("hello", True)
