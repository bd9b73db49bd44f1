"""Damage every file that the project writes, and ask the next reader: it must notice, or not be affected.

Each case is one damage of one file and one reader of it, in a forked process. It is clear if the reader gives the
answer that it gives for the undamaged file, or ends with one message that names the file; and if it leaves all other
files as they are.
"""

import hashlib
import importlib
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from app import summary
from app.cli import app
from components import compare, evaluate, gate, index, prepare, report, tokenize, train
from components.layout import CURVES, EVALUATION, INDEX, MODEL, PREPARED, RANKINGS, TOKENS
from irra.checkpoint import load_model, model_fingerprint
from irra.config import Params, load_params
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.search.gallery import Gallery
from irra.trainer import Trainer
from irra.utils.files import hash_file
from tests.hostile.damages import Damage, damages
from tests.hostile.outcomes import Outcomes
from tests.hostile.sandbox import Sandbox, changes
from tests.hostile.trial import SECONDS, Ending, Trials, problem_of
from tests.imports import ROOT

Read = Callable[[], object]
PARAMS = ROOT / "presets" / "tiny.yaml"
STATES, RUN_ID = Path("checkpoints"), Path("run_id")  # of a stopped training; of a finished one
RESULTS, MEASURED = EVALUATION / "results.json", (EVALUATION, RANKINGS)
MAKING_SECONDS = 120.0


@dataclass(frozen=True)
class Reader:
    """Something that reads files: its name, the files below its folders, what it does, and what it writes."""

    name: str
    reads: tuple[Path, ...]
    read: Read
    writes: tuple[Path, ...] = ()
    share: float = 1.0  # of the damages that there is time for


@dataclass(frozen=True)
class Case:
    """One damage of one file, and a reader of it."""

    reader: Reader
    file: Path
    name: str
    damage: Damage


def run(folder: Path, outcomes: Outcomes, seed: int, deadline: float) -> None:
    """Do as many cases as there is time for, in an order that depends on the seed."""
    project, scratch = folder / "project", folder / "scratch"
    project.mkdir()
    scratch.mkdir()
    torch.set_num_threads(1)  # a fork has only one thread
    params, trials = load_params(PARAMS), Trials(project, scratch)
    made = trials.attempt(partial(make_project, params), MAKING_SECONDS)
    assert made.status == 0, made.message
    import_all(made.answer.split())
    run_id = (project / RUN_ID).read_text()
    sandbox = Sandbox(project, folder / "pristine")
    readers = all_readers(params, run_id)
    answers = {reader: intact_answer(reader, trials, sandbox) for reader in readers}
    for case in draw_cases(readers, sandbox.pristine, random.Random(seed)):
        if time.monotonic() > deadline - SECONDS:
            return
        problem = judge(case, answers[case.reader], trials, sandbox)
        outcomes.add(f"{case.reader.name}: {case.file.parent}", f"{case.file.name} {case.name}", problem)


def import_all(names: Sequence[str]) -> None:
    """Import modules here, so that no trial has to."""
    for name in names:
        with suppress(ImportError):  # made by other modules, without a file
            importlib.import_module(name)


def intact_answer(reader: Reader, trials: Trials, sandbox: Sandbox) -> str:
    """What a reader answers for undamaged files; it must always be the same."""
    endings = []
    for _ in range(2):
        endings.append(trials.attempt(reader.read))
        sandbox.restore()
    assert endings[0].status == endings[1].status == 0, (reader.name, endings[0].message)
    assert endings[0].answer == endings[1].answer, reader.name
    return endings[0].answer


def draw_cases(readers: list[Reader], pristine: Path, rng: random.Random) -> list[Case]:
    """Every damage of every file for every reader of it, in any order."""
    cases = []
    for reader in readers:
        for file in files_of(reader, pristine):
            content = (pristine / file).read_bytes()
            drawn = [Case(reader, file, name, damage) for name, damage in damages(content, rng)]
            cases += rng.sample(drawn, round(reader.share * len(drawn)))
    rng.shuffle(cases)
    return cases


def files_of(reader: Reader, pristine: Path) -> list[Path]:
    """The files that a reader reads, relative to the project."""
    found = [path for part in reader.reads for path in sorted((pristine / part).rglob("*")) if path.is_file()]
    alone = [pristine / part for part in reader.reads if (pristine / part).is_file()]
    return [path.relative_to(pristine) for path in [*found, *alone]]


def judge(case: Case, expected: str, trials: Trials, sandbox: Sandbox) -> str | None:
    """Do a case and say what is wrong with how it ended; the sandbox is as before."""
    case.damage(sandbox.folder / case.file)
    before = sandbox.state()
    ending = trials.attempt(case.reader.read)
    touched = changes(before, sandbox.state())
    sandbox.restore()
    return problem_of(ending, expected, [case.file.name]) or wrongly_touched(case.reader, ending, touched)


def wrongly_touched(reader: Reader, ending: Ending, touched: list[str]) -> str | None:
    """Say which files were changed that should not have been: any by a failure, others than its own by a success."""
    own = tuple(map(str, reader.writes)) if ending.status == 0 else ()
    wrong = [path for path in touched if not (own and path.startswith(own)) or path.endswith(".tmp")]
    return f"exit status {ending.status}, but it changed {', '.join(wrong)}" if wrong else None


# --- the project, and a second one whose training was stopped ---


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
    read_gallery()
    summary.show()
    return " ".join(sys.modules)


def stop_training(params: Params) -> None:
    """Leave a state of the first epoch in `checkpoints`."""
    real = Trainer.save

    def save_once(trainer: Trainer) -> None:
        real(trainer)
        if trainer.state.best_epoch:
            raise Stopped

    with suppress(Stopped), patch.object(Trainer, "save", save_once):
        train.run(train.Inputs(), train.Outputs(Path("no"), Path("no"), STATES), params.train)


# --- the readers ---


def all_readers(params: Params, run_id: str) -> list[Reader]:
    """Every reader of every file."""
    reports = (RESULTS, EVALUATION / "cmc.csv", RANKINGS, CURVES)
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
    gallery = Gallery.open(INDEX)
    gallery.check_thumbnails()
    entries = [gallery.entry(row) for row in range(gallery.size)]
    captions = [gallery.caption(row) for row in range(gallery.caption_count)]
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

    names = ("cmc_curve", "loss_curves", "validation_curves", "retrieval_sheet", "draw_dataset_sheet", "log")
    drawing = {**{name: note(name) for name in (*names, "write_page")}, "picture": str}
    with patch.multiple(report, **drawing):
        report.run(report.Inputs(), report.Outputs(), params.report)
    return "\n".join(drawn)


def resume(params: Params) -> str:
    """Resume the stopped training."""
    outputs = train.Outputs(Path("resumed/model"), Path("resumed/curves"), STATES)
    returned = train.run(train.Inputs(), outputs, params.train)
    curves = [path.read_text() for path in sorted(outputs.report.iterdir())]
    return f"{returned['selected']} {returned['model_fingerprint']} {curves}"
