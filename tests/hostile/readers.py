"""A small project with all files that the pipeline writes, and their readers."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from app import summary
from app.cli import app
from components import compare, evaluate, gate, index, prepare, report, tokenize, train
from components.layout import CURVES, EVALUATION, INDEX, MODEL, PREPARED, RANKINGS, TOKENS
from components.s3.client import RemoteFolder
from components.s3.transfer import download, upload
from components.tracking import sync
from components.tracking.models import resolve_model
from components.tracking.spool import Spool
from components.tracking.store import connect, tracking_uri
from irra.checkpoint import load_model, model_fingerprint
from irra.config import Params
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.search.folder import FolderGallery
from irra.trainer import Trainer
from irra.utils.files import hash_file

STATES, RUN_ID = Path("checkpoints"), Path("run_id")  # of a stopped training; of a finished one
RESULTS, MEASURED = EVALUATION / "results.json", (EVALUATION, RANKINGS)
CACHE, OTHER, SPOOL, DATABASE = Path("cache"), Path("other-cache"), Path("mlflow-spool"), Path("mlflow.db")
OBJECTS, REMOTE, COPY = Path("objects"), "s3://bucket/folder", Path("copy")  # what is at REMOTE, as files; a download


@dataclass(frozen=True)
class Reader:
    """Something that reads files: its name, the files below its folders, what it does, and what it writes."""

    name: str
    reads: tuple[Path, ...]
    read: Callable[[], object]
    writes: tuple[Path, ...] = ()
    share: float = 1.0  # of the damages that there is time for
    resumes: bool = False  # what it wrote before it failed is whole, and is used the next time
    known_as: str | None = None  # what a message may name instead of the file
    warns: bool = False  # a warning that names the file is enough, since what was asked goes on without it


class Stopped(Exception):
    """Ends a training in its second epoch."""


def make_project(params: Params) -> str:
    """Run all stages in the current folder; the state of a stopped training is kept as well.

    Returns:
        The names of the modules that this has imported.
    """
    prepare.run(prepare.Inputs(), prepare.Outputs(), params.prepare)
    tokenize.run(tokenize.Inputs(), tokenize.Outputs(), params.tokenize)
    stop_training(params)
    trained = train.run(train.Inputs(), train.Outputs(checkpoints=Path("other")), params.train)
    RUN_ID.write_text(trained["run_id"])
    evaluate.run(evaluate.Inputs(), evaluate.Outputs(), params.evaluate)
    report.run(report.Inputs(), report.Outputs(), params.report)
    index.run(index.Inputs(), index.Outputs(), params.index)
    fill_spool(trained["run_id"])
    upload_to_s3()
    for reader in all_readers(params, Path()):
        if reader.name in ("gallery", "summary", "cached model"):
            reader.read()
    return " ".join(sys.modules)


def fill_spool(run_id: str) -> None:
    """Leave entries of a finished run that MLflow does not have yet."""
    spool = Spool({"run": {"id": run_id}})
    metrics = [{"metric": [f"kept/{number}", number / 7, 1_700_000_000_000 + number, number]} for number in range(5)]
    spool.append([*metrics, {"param": ["kept", "a"]}, {"tag": ["kept", "b"]}, {"status": "FAILED"}])
    spool.release()


def upload_to_s3() -> None:
    """Upload a folder, and keep its objects as files, which can be damaged."""
    source = Path("source")
    source.mkdir()
    for name in ("a.txt", "b.txt"):
        (source / name).write_text(f"the content of {name} 12345")
    upload(source, REMOTE)
    shutil.rmtree(source)
    OBJECTS.mkdir()
    remote = RemoteFolder(REMOTE)
    for name in remote.list():
        (OBJECTS / name).write_bytes(remote.read(name))


def stop_training(params: Params) -> None:
    """Leave a state of the first epoch in `checkpoints`."""
    real = Trainer.save

    def save_once(trainer: Trainer) -> None:
        real(trainer)
        if trainer.state.best_epoch:
            raise Stopped

    with suppress(Stopped), patch.object(Trainer, "save", save_once):
        train.run(train.Inputs(), train.Outputs(Path("no"), Path("no"), STATES), params.train)


def all_readers(params: Params, project: Path) -> list[Reader]:
    """Every reader of every file in the folder `project`."""
    reports = (RESULTS, EVALUATION / "cmc.csv", RANKINGS, CURVES)
    (logged,) = (path.relative_to(project) for path in (project / "mlartifacts").rglob("artifacts/model"))
    return [
        Reader("prepared data", (PREPARED,), read_prepared),
        Reader("irra info", (PREPARED,), partial(irra, "info", "--verify", PREPARED, "--json")),
        Reader("tokenize", (PREPARED,), lambda: outcome(tokenize, params.tokenize), (TOKENS,), 0.3),
        Reader("tokens", (TOKENS,), read_tokens),
        Reader("irra info", (TOKENS,), partial(irra, "info", "--verify", TOKENS, "--json")),
        Reader("model", (MODEL,), read_model),
        Reader("irra info", (MODEL,), partial(irra, "info", "--verify", MODEL, "--json")),
        Reader("index", (MODEL,), lambda: outcome(index, params.index), (INDEX,), 0.5),
        Reader("gallery", (INDEX,), read_gallery),
        Reader("irra info", (INDEX,), partial(irra, "info", "--verify", INDEX, "--json")),
        Reader("irra search", (INDEX,), partial(irra, "search", "a man in red", "--json"), share=0.5),
        Reader("report", reports, lambda: draw_report(params)),
        Reader("gate", (RESULTS,), lambda: gate.read_candidate(EVALUATION, params.registry.metric)),
        Reader("summary", (RESULTS,), summary.show),
        Reader("compare", (RESULTS,), lambda: compare.read_result(EVALUATION)),
        Reader("evaluate", (PREPARED, TOKENS, MODEL), lambda: outcome(evaluate, params.evaluate), MEASURED, 0.1),
        Reader("train", (STATES,), lambda: resume(params), (STATES, Path("resumed")), 0.7),
        Reader("cached model", (CACHE,), partial(read_downloaded, CACHE), (CACHE,)),
        Reader("logged model", (logged,), partial(read_downloaded, OTHER), (OTHER,), resumes=True, known_as="runs:/"),
        Reader("download", (OBJECTS,), read_remote, (COPY,), resumes=True),
        Reader("mlflow-sync", (SPOOL,), send_kept, warns=True),
        Reader("evaluate", (DATABASE,), lambda: outcome(evaluate, params.evaluate), MEASURED, resumes=True),
    ]


def digest(*parts: Any) -> str:
    """A hash of values of any kind."""
    return hashlib.sha256(repr(_plain(parts)).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """A value whose `repr` shows all of it."""
    match value:
        case np.ndarray():
            return (str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest())
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return [(_plain(key), _plain(item)) for key, item in value.items()]
        case _ if hasattr(value, "__dict__"):
            return _plain(vars(value))
    return value


def read_prepared() -> str:
    store = PreparedStore.open(PREPARED)
    columns = (store.image_pids, store.image_labels, store.image_paths, store.captions, store.caption_image_ids)
    facts = (store.dataset_name, store.fingerprint, store.settings, store.splits, store.num_classes)
    return digest(store.pixels(np.arange(len(store.image_pids))), *columns, *facts)


def read_tokens() -> str:
    tokens = TokenStore.open(TOKENS)
    tokens.verify()
    first = tokens.first_training_row
    facts = (tokens.settings, tokens.fingerprint, tokens.data_fingerprint, first)
    return digest(tokens.caption_ids, *tokens.masked(np.arange(first, first + 48), 2), *facts)


def read_model() -> str:
    model = load_model(MODEL)
    weights = [value.numpy() for value in model.state_dict().values()]
    return digest(*weights, model.spec, model_fingerprint(MODEL))


def read_gallery() -> str:
    gallery = FolderGallery.open(INDEX)
    gallery.check_thumbnails()
    entries = [gallery.entry(row) for row in range(gallery.size)]
    captions = [gallery.caption(row) for row in range(gallery.info.captions)]
    found = gallery.search(gallery.embeddings.astype(np.float32), 3)
    return digest(asdict(gallery.info), entries, captions, gallery.caption_embeddings, *found)


def irra(*arguments: object) -> None:
    """Run the command line, which ends the process and prints its answer."""
    app([str(argument) for argument in arguments], prog_name="irra")


def outcome(stage: Any, config: Any) -> str:
    """Run a stage, and describe what it returned and wrote."""
    outputs = stage.Outputs()
    returned = stage.run(stage.Inputs(), outputs, config)
    folders = [path for path in vars(outputs).values() if path.is_dir()]
    written = {str(path): hash_file(path) for folder in folders for path in sorted(folder.rglob("*"))}
    return f"{returned} {written}"


def draw_report(params: Params) -> str:
    """Run the report stage with its drawing, which takes seconds, replaced by a note of what would be drawn."""
    drawn: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *values, **named: drawn.append(f"{name} {digest(values, named)}")

    names = ("cmc_curve", "loss_curves", "validation_curves", "retrieval_sheet", "contact_sheet", "log")
    drawing = {**{name: note(name) for name in (*names, "write_page")}, "charts": str}
    with patch.multiple(report, **drawing):
        report.run(report.Inputs(), report.Outputs(), params.report)
    return "\n".join(drawn)


def resume(params: Params) -> str:
    """Resume the stopped training."""
    outputs = train.Outputs(Path("resumed/model"), Path("resumed/curves"), STATES)
    with redirect_stdout(sys.stderr):  # the lines of epochs; there are more of them without a state
        returned = train.run(train.Inputs(), outputs, params.train)
    curves = [path.read_text() for path in sorted(outputs.report.iterdir())]
    return f"{returned['selected']} {returned['model_fingerprint']} {curves}"


def read_downloaded(cache: Path) -> str:
    """The model that MLflow has, from a cache or by download."""
    with patch.dict(os.environ, {"XDG_CACHE_HOME": str(cache)}):
        folder = resolve_model(f"runs:/{RUN_ID.read_text()}/model")
    return digest(*[value.numpy() for value in load_model(folder).state_dict().values()], model_fingerprint(folder))


def read_remote() -> str:
    """What a download brings if S3 holds what is in OBJECTS."""
    remote = RemoteFolder(REMOTE)
    present = [path for path in OBJECTS.iterdir() if path.is_file()]
    for name in remote.list().keys() - {path.name for path in present}:
        remote.delete(name)
    for path in present:
        remote.write(path.name, path.read_bytes() if path.resolve() != Path("/dev/zero") else b"")
    download(REMOTE, COPY)
    return str({path.name: path.read_text() for path in sorted(COPY.iterdir()) if path.name != "irra-manifest.json"})


def send_kept() -> str:
    """What MLflow has of the run after everything that was kept was sent."""
    sync.run()
    run = connect(tracking_uri()).get_run(RUN_ID.read_text())
    kept = {name: value for name, value in run.data.metrics.items() if name.startswith("kept")}
    return f"{sorted(kept.items())} {run.data.params.get('kept')} {run.data.tags.get('kept')} {run.info.status}"
