"""The model that MLflow serves: in this process, and over HTTP without the project installed."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import pyfunc
from mlflow.exceptions import MlflowException

from components import register
from components.tracking.store import tracking_uri
from irra.checkpoint import load_model, model_fingerprint
from irra.data.store import PreparedStore
from irra.search.encoder import Encoder
from irra.search.engine import Hit, SearchEngine
from irra.search.metadata import read_metadata
from irra.search.update import index_folder
from tests.cli import write_photos
from tests.components.test_registry import irra, project  # noqa: F401
from tests.components.test_tracking import clean_environment, eventually  # noqa: F401
from tests.imports import ROOT, import_closure, imported_names

pytestmark = pytest.mark.xdist_group("mlflow")
QUERIES = ["a person in red and blue", "green above yellow in a park"]
MODULES = {
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "open_clip": "open_clip_torch",
    "yaml": "pyyaml",
}  # names differ


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> register.Inputs:
    inputs: register.Inputs = request.getfixturevalue("irra")
    return inputs


@cache
def champion() -> Any:
    return pyfunc.load_model("models:/irra@champion")


def as_dicts(hits: list[Hit]) -> list[dict[str, Any]]:
    scores = [pytest.approx(hit.score, abs=1e-6) for hit in hits]  # rounding depends on what is encoded together
    pairs = zip(hits, scores, strict=True)
    return [{"rank": hit.rank, "score": score, "path": hit.path, "pid": hit.pid} for hit, score in pairs]


def test_the_champion_finds_what_the_engine_finds(registered: register.Inputs) -> None:
    expected = SearchEngine.open(registered.model, registered.index).search(QUERIES, 3)
    found = champion().predict(pd.DataFrame({"text": QUERIES, "top_k": [3, 1]}))
    assert found.hits.tolist() == [as_dicts(expected[0]), as_dicts(expected[1][:1])]


def test_top_k_may_be_left_out_and_exceed_the_gallery(registered: register.Inputs) -> None:
    frames = [pd.DataFrame([row]) for row in ({"text": "a"}, {"text": "a", "top_k": 99})]
    model = champion()
    lengths = [len(model.predict(frame).hits[0]) for frame in frames]
    assert lengths == [8, 8]


@pytest.mark.parametrize(
    ("counts", "lengths"),
    [
        ([2, None], [2, 8]),
        ([None, None], [8, 8]),
        ([float("nan"), 1.0], [8, 1]),
        (pd.Series([3, None], dtype="Int64"), [3, 8]),
        (pd.Series([2, None], dtype=object), [2, 8]),
    ],
    ids=["some", "none", "floats", "nullable integers", "objects"],
)
def test_top_k_may_be_missing_in_some_rows(registered: register.Inputs, counts: Any, lengths: list[int]) -> None:
    hits = champion().predict(pd.DataFrame({"text": QUERIES, "top_k": counts})).hits
    assert [len(row) for row in hits] == lengths


def test_several_sentences_about_a_person_are_one_query(registered: register.Inputs) -> None:
    several, alone = SearchEngine.open(registered.model, registered.index).search([QUERIES, QUERIES[0]], 3)
    rows = [{"text": QUERIES[0], "top_k": 3, "also_says": QUERIES[1:]}, {"text": QUERIES[0], "top_k": 3}]
    found = champion().predict(pd.DataFrame(rows))
    assert found.hits.tolist() == [as_dicts(several), as_dicts(alone)]


def test_a_condition_holds_for_its_row(registered: register.Inputs) -> None:
    gallery = SearchEngine.open(registered.model, registered.index)
    paths = [hit.path for hit in gallery.search([QUERIES[0]], 8)[0]]
    where = f"path in ('{paths[3]}', '{paths[6]}')"
    rows = [{"text": QUERIES[0]}, {"text": QUERIES[0], "where": where}, {"text": QUERIES[0], "where": "pid is null"}]
    found = champion().predict(pd.DataFrame(rows)).hits
    assert [[hit["path"] for hit in row] for row in found] == [paths, [paths[3], paths[6]], []]


def test_a_note_says_what_was_not_read(registered: register.Inputs) -> None:
    long = " ".join(["red"] * 14 + ["and", "blue", "shoes"])  # the model reads 14 words
    found = champion().predict(pd.DataFrame({"text": ["a person in red", long]}))
    assert found.note.tolist() == [None, "longer than the model can read; not read: and blue shoes"]


def test_any_language_and_any_characters_are_searched(registered: register.Inputs) -> None:
    texts = ["🧍‍♀️👗🔴", "穿红色外套的女人", "امرأة ترتدي معطفا أحمر", "<b>'; --"]
    hits = champion().predict(pd.DataFrame({"text": texts, "top_k": [1, 2, 1, 3]})).hits
    assert [len(row) for row in hits] == [1, 2, 1, 3]


def test_no_query_gives_no_hits(registered: register.Inputs) -> None:
    assert champion().predict(pd.DataFrame({"text": pd.Series([], dtype=str)})).hits.tolist() == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"text": ["a", " \n"]}, "query 2 is empty"),
        ({"text": ["a", None]}, "query 2: expected a text"),
        ({"text": ["a" * 3000]}, "query 1 has 3000 characters"),
        ({"text": ["a"], "also_says": ["b"]}, "query 1: also_says is 'b'; give a list of sentences"),
        ({"text": ["a"], "also_says": [["b", ""]]}, "query 1: also_says is empty"),
        ({"text": ["a"], "top_k": [0]}, "query 1: top_k is 0; ask for 1 to 1000 pictures"),
        ({"text": ["a", "b"], "top_k": [1000, 1001]}, "query 2: top_k is 1001"),
        ({"text": ["a"], "top_k": [2**62]}, "query 1: top_k is 4611686018427387904"),
        ({"text": ["a"], "top_k": [1.5]}, "query 1: top_k is 1.5; ask for a whole number of pictures"),
        ({"text": ["a", "b"], "top_k": [None, -1]}, "query 2: top_k is -1.0; ask for 1 to 1000"),
        ({"text": ["a"], "top_k": ["many"]}, "query 1: top_k is many; ask"),
        ({"text": ["a"], "top_k": [[3]]}, r"query 1: top_k is \[3\]"),
        ({"text": ["a"], "top_k": [True]}, "query 1: top_k is True"),
        ({"text": ["a"], "top_k": [float("inf")]}, "query 1: top_k is inf; ask for 1 to 1000"),
        (
            {"text": ["a", "b"], "where": [None, "camera = 3"]},
            "query 2: the condition .* no column camera; columns: path",
        ),
        ({"text": ["a"], "where": [3]}, "query 1: where is 3; give a condition such as"),
        ({"text": ["a"], "where": [""]}, "query 1: the condition .* is empty"),
        ({"text": [7]}, "Incompatible input types for column text"),
        ({"query": ["a"]}, r"missing inputs \['text'\]"),
    ],
)
def test_a_bad_query_is_named(registered: register.Inputs, rows: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException, match=message) as caught:
        champion().predict(pd.DataFrame(rows))
    assert caught.value.get_http_status_code() == 400


def test_another_gallery_is_named_when_the_model_is_loaded(
    registered: register.Inputs, store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it.csv").write_text("key,camera,time\n1.png,3,2026-11-27 18:00\n2.png,4,\n")
    photos = write_photos(tmp_path / "photos", store, 4)
    encoder, fingerprint = Encoder(load_model(registered.model)), model_fingerprint(registered.model)
    index_folder(photos, encoder, fingerprint, tmp_path / "it", metadata=read_metadata(tmp_path / "it.csv"))
    monkeypatch.setenv("MLFLOW_PYFUNC_INFERENCE_CONFIG", json.dumps({"index": str(tmp_path / "it")}))
    model = pyfunc.load_model("models:/irra@champion")
    [hits] = model.predict(pd.DataFrame({"text": QUERIES[:1], "where": ["camera > 2"]})).hits
    assert {hit["path"]: hit["metadata"] for hit in hits} == {
        "1.png": {"camera": 3, "time": "2026-11-27T18:00:00"},
        "2.png": {"camera": 4, "time": None},
    }


def test_every_package_that_serving_imports_is_pinned() -> None:
    files = {"components/tracking/served_model.py"} | import_closure(ROOT / "irra" / "search" / "engine.py")
    imported = {name.split(".")[0] for file in files for name in imported_names(ROOT / file)}
    needed = {MODULES.get(name, name) for name in imported - set(sys.stdlib_module_names) - {"irra"}}
    assert needed <= set(register.PACKAGES) | set(register.WHERE_INSTALLED)
    assert all(line.count("==") == 1 and "+" not in line for line in register.requirements())


# ---- over HTTP ----

# Runs first in every Python process below it, and hides the checkout and its installation.
NOT_INSTALLED = f"""
import importlib.util, sys
sys.path = [entry for entry in sys.path if entry != {str(ROOT)!r}]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
if importlib.util.find_spec("irra") or importlib.util.find_spec("components"):
    sys.exit("the project is still there")
"""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the champion with MLflow's own command, outside the project; yields the address for queries."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(NOT_INSTALLED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-P", "-m", "mlflow", "models", "serve", "--model-uri", "models:/irra@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": tracking_uri(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "site"),
        "OMP_NUM_THREADS": "1",
    }
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        assert eventually(lambda: answers(port) or process.poll() is not None, 200), log.read_text()
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def post(address: str, body: Any) -> tuple[int, Any]:
    """Return status and JSON of a response."""
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.system
def test_mlflow_serves_the_champion_where_the_project_is_not_installed(
    registered: register.Inputs, tmp_path: Path
) -> None:
    expected = champion().predict(pd.DataFrame({"text": QUERIES})).hits.tolist()
    bad = [{"text": ""}, {"text": None}, {"text": ["a"]}, {"query": "a"}, {"text": "a", "top_k": 0}]
    bad.append({"text": "a", "where": "camera = 3"})
    with served(tmp_path) as address:
        statuses = [post(address, {"dataframe_records": [row]})[0] for row in bad]
        statuses += [post(address, body)[0] for body in ("a", {"text": "a"}, {"inputs": "a"})]
        status, found = post(address, {"dataframe_records": [{"text": text} for text in QUERIES]})
        some = [{"text": QUERIES[0], "top_k": 2}, {"text": "red " * 20}, {"text": QUERIES[1], "top_k": None}]
        some.append({"text": QUERIES[1], "where": f"path = '{expected[1][4]['path']}'"})
        _, mixed = post(address, {"dataframe_records": some})
        _, message = post(address, {"dataframe_records": [{"text": "  "}]})
    assert statuses == [400] * 9
    assert (status, [row["hits"] for row in found["predictions"]]) == (200, expected)
    assert [len(row["hits"]) for row in mixed["predictions"]] == [2, 8, 8, 1]
    assert [row["note"] is None for row in mixed["predictions"]] == [True, False, True, True]
    assert "query 1 is empty" in message["message"]
