"""Draw the outputs of the other stages: pictures, and one self-contained page with all of them.

python -m components.report             # what `dvc repro report` runs
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.figures import RetrievalRow, cmc_curve, contact_sheet, loss_curves, retrieval_sheet, validation_curves
from components.figures.dataset import sheet_rows
from components.figures.page import charts, heading, metrics_table, note, table, write_page
from components.figures.strips import Pair, pairs, people, queries
from components.figures.style import DIRECTIONS
from components.layout import CURVES, EVALUATION, MODEL_RUN, PICTURES, PREPARED, RANKINGS
from components.results import CMC, EVALUATE_AGAIN, RESULTS, check_written_with, further_tables, read_results
from components.results import RANKINGS as RANKINGS_KEY
from components.stage import main
from components.tracking.notes import noted_run
from components.tracking.run import open_run
from irra.config import ReportConfig
from irra.data.store import PreparedStore
from irra.metrics import METRIC_NAMES
from irra.utils.errors import UserError
from irra.utils.records import check_files

HISTORY, VALIDATION, DROPPED, PAGE = "history.csv", "validation.csv", "dropped.csv", "report.html"
MOST_DROPPED = "Captions that were dropped most often"
SHOWN_DROPPED = 48
TRUTH = {"": "", "0": ", although it is right", "1": ", and it is wrong"}  # by what is known of a caption
SELECTED_BY = "R1"  # the trainer's SELECTION_METRIC, whose import would take seconds
MARKED = (
    "In percent, with 95% intervals. Marked: it selected the best epoch, and the gate decides by it unless "
    "registry.metric names another."
)
SHORT = 12  # characters of a fingerprint
TRAIN_AGAIN = "train the model again (dvc repro --force --single-item train)"


@dataclass(frozen=True)
class Inputs:
    """The prepared store, the curves of the training, the metrics and rankings of its model, and its MLflow run."""

    prepared: Path = PREPARED
    train: Path = CURVES
    evaluate: Path = EVALUATION
    rankings: Path = RANKINGS
    model_run: Path = MODEL_RUN


@dataclass(frozen=True)
class Outputs:
    """The folder for the pictures and the page."""

    report: Path = PICTURES


@dataclass(frozen=True)
class Chapter:
    """The part of the report about one stage.

    Attributes:
        stage: Its stage.
        title: Its title.
        subject: What it is about, as a title: the data, and how the model was trained.
        facts: What else tells it from the same chapter about another model or dataset.
        tables: HTML.
        charts: Pictures in reading order.
        sheets: Pictures that a narrow page cannot show, each with the HTML that it shows instead.
        lists: HTML that comes last.
    """

    stage: str
    title: str
    subject: str
    facts: Mapping[str, str]
    tables: Sequence[str]
    charts: Sequence[Path] = ()
    sheets: Mapping[Path, str] = field(default_factory=dict)
    lists: Sequence[str] = ()

    @property
    def pictures(self) -> list[Path]:
        """All pictures, in reading order."""
        return [*self.charts, *self.sheets]

    def blocks(self) -> list[str]:
        """The chapter as blocks of HTML."""
        return [*self.tables, *([charts(self.charts)] if self.charts else []), *self.sheets.values(), *self.lists]


@dataclass(frozen=True)
class Rankings:
    """What each of the Q test queries retrieved: its caption, its scores, and its K best images with similarities."""

    caption_id: NDArray[np.int64]
    first_rank: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    image_ids: NDArray[np.int64]  # (Q, K)
    similarities: NDArray[np.float64]  # (Q, K)


def run(inputs: Inputs, outputs: Outputs, config: ReportConfig) -> dict[str, Any]:
    """Draw the report and log it to the MLflow run that trained the model.

    Returns:
        The names of the pictures.
    """
    check_inputs(inputs)
    model, folder = read_results(inputs.evaluate)["model"], outputs.report
    chapters = [
        draw_evaluation(inputs.evaluate, inputs.rankings, inputs.prepared, config, folder),
        draw_training(inputs.train, inputs.prepared, model, folder),
        draw_dataset(inputs.prepared, folder),
    ]
    blocks = [block for chapter in chapters for block in (heading(chapter.title), *chapter.blocks())]
    run_id = noted_run(inputs.model_run, model["fingerprint"])
    write_page(folder / PAGE, subject_of(model), blocks, facts_of(model))
    log(chapters, model["fingerprint"], run_id, folder / PAGE)
    return {"pictures": [path.name for chapter in chapters for path in chapter.pictures]}


def check_inputs(inputs: Inputs) -> None:
    """Check that every file to be drawn exists.

    Raises:
        UserError: One is missing.
    """
    curves = (inputs.train / HISTORY, inputs.train / VALIDATION, inputs.evaluate / CMC)
    for path in (*curves, inputs.evaluate / RESULTS, inputs.rankings):
        if not path.is_file():
            raise UserError(f"{path}: missing; train and evaluate a model first (dvc repro report does)")


def subject_of(model: Mapping[str, Any]) -> str:
    """The title of a page about a model, from its metadata: what was trained on which data."""
    train = model["train"]
    return f"{train['loss_names']} on {model['dataset']}, {train['num_epoch']} epochs, seed {train['seed']}"


def facts_of(model: Mapping[str, Any]) -> dict[str, str]:
    """What else tells a model from others: its backbone, and the fingerprints of its weights and data, as in MLflow."""
    weights = model.get("fingerprint") or model.get("weights_sha256", "")  # as evaluate and as train say it
    prints = {"model": weights, "data": model["data_fingerprint"]}
    return {"backbone": model["train"]["backbone"], **{name: sha256[:SHORT] for name, sha256 in prints.items()}}


def draw_dataset(prepared: Path, folder: Path) -> Chapter:
    """Draw some people of every split, and tabulate the sizes of the splits."""
    sheet = folder / "contact_sheet.png"
    store = PreparedStore.open(prepared)
    rows = sheet_rows(store)
    contact_sheet(sheet, rows)
    splits = store.stats.splits
    sizes = [[split, *map(str, vars(size).values())] for split, size in splits.items()]
    counts = table(["split", *vars(next(iter(splits.values())))], sizes)
    skipped = note(f"Images left out: {len(store.stats.skipped)}")
    facts = {"data": store.fingerprint[:SHORT]}
    return Chapter("prepare", "Dataset", store.dataset_name, facts, [counts, skipped], sheets={sheet: people(rows)})


def draw_training(curves: Path, prepared: Path, model: Mapping[str, Any], folder: Path) -> Chapter:
    """Draw the tables in the folder `curves`; `model` is the training part of the model's config.json.

    The captions that CCD dropped most often are listed with their images, which are in the store `prepared`.

    Raises:
        UserError: A table is missing or damaged.
    """
    check_files(curves, model.get("curves", {}), TRAIN_AGAIN)
    history, validation = (read_columns(curves / name, TRAIN_AGAIN) for name in (HISTORY, VALIDATION))
    losses, validations = folder / "losses.png", folder / "validation.png"
    epochs = history.pop("epoch")
    loss_curves(losses, {name: known(epochs, values) for name, values in history.items()})
    best, split = model["selected"]["best_epoch"], model["train"]["select_on"]
    metrics = {name: validation[name] for name in METRIC_NAMES}
    validation_curves(validations, list(map(int, validation["epoch"])), metrics, best, split)
    values = [f"{model['selected'][split]['t2i'][name]:.2f}" for name in METRIC_NAMES]
    row = [f"{split}, {DIRECTIONS['t2i']}", *values]
    selected = table(["", *METRIC_NAMES], [row], (0, 1 + METRIC_NAMES.index(SELECTED_BY)))
    tables = [selected, note(f"In percent, after epoch {best}. Marked: it selected that epoch.")]
    lists = list_dropped(curves / DROPPED, PreparedStore.open(prepared))
    return Chapter("train", "Training", subject_of(model), facts_of(model), tables, [validations, losses], lists=lists)


def known(epochs: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The epochs and values of a column without its empty cells."""
    points = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if not math.isnan(value)]
    return [epoch for epoch, _ in points], [value for _, value in points]


def list_dropped(path: Path, store: PreparedStore) -> list[str]:
    """Format the first captions of the table at `path`, each beside its image; nothing if there are none.

    Raises:
        UserError: It is damaged.
    """
    if not path.is_file():  # beside a model of an earlier version
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        ids = np.array([int(row["caption_id"]) for row in rows[:SHOWN_DROPPED]], dtype=np.int64)
        images = store.pixels(store.caption_image_ids[ids])
        captions = [row["caption"] for row in rows[:SHOWN_DROPPED]]
        counts = [f"dropped in {row['dropped']} of {row['divided']} epochs{TRUTH[row['wrong']]}" for row in rows]
    except (ValueError, TypeError, KeyError, IndexError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({error}); {TRAIN_AGAIN}") from None
    about = (
        f"By their losses, they do not describe the image beside them. Shown: {len(ids)} of {len(rows)} in {path.name}."
    )
    return [pairs(MOST_DROPPED, about, list(map(Pair, images, captions, counts)))] if rows else []


def draw_evaluation(measured: Path, rankings: Path, prepared: Path, config: ReportConfig, folder: Path) -> Chapter:
    """Draw the tables in the folder `measured`, and the best, the worst and random queries with their results.

    Raises:
        UserError: The evaluation is missing or damaged, or was made with other data.
    """
    results, store = read_results(measured), PreparedStore.open(prepared)
    if results["model"]["data_fingerprint"] != store.fingerprint:
        raise UserError(
            f"{measured / RESULTS} was made with other data than {prepared}; evaluate again (dvc repro evaluate)"
        )
    for key, path in ((CMC, measured / CMC), (RANKINGS_KEY, rankings)):
        check_written_with(results, key, path)
    columns = read_columns(measured / CMC, EVALUATE_AGAIN)
    cmc_curve(folder / "cmc.png", {name.replace("_", "/"): columns[name] for name in columns if name != "rank"})
    sheets = draw_sheets(store, read_rankings(rankings), config, folder)
    model = results["model"]
    first = f"{model['train']['select_on']}/t2i/{SELECTED_BY}"
    tables = [metrics_table(results["metrics"], results["intervals"], first), note(MARKED)]
    tables += [block for more in further_tables(results) for block in (note(more.title), table(more.header, more.rows))]
    return Chapter("evaluate", "Evaluation", subject_of(model), facts_of(model), tables, [folder / "cmc.png"], sheets)


def read_columns(path: Path, cure: str) -> dict[str, list[float]]:
    """Read a CSV table of numbers by column; an empty cell is nan.

    Raises:
        UserError: It is damaged; `cure` says what to do.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: [math.nan if row[name] == "" else float(row[name]) for row in rows] for name in rows[0]}
    except (ValueError, TypeError, IndexError, csv.Error) as error:  # not numbers, or rows of different lengths
        raise UserError(f"{path}: damaged ({error}); {cure}") from None


def read_rankings(path: Path) -> Rankings:
    """Read the table written by evaluate.

    Raises:
        UserError: It is damaged.
    """
    try:
        table = pq.ParquetFile(path).read()
        return Rankings(**{name: np.array(table[name].to_pylist()) for name in table.column_names})
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); {EVALUATE_AGAIN}") from None


def draw_sheets(store: PreparedStore, rankings: Rankings, config: ReportConfig, folder: Path) -> dict[Path, str]:
    """Draw one sheet each of the best, the worst and random queries with their results: as a picture, and as HTML."""
    pids = store.image_pids[store.caption_image_ids[rankings.caption_id]]
    sheets = {}
    for name, picked in pick_queries(pids, rankings, config).items():
        rows = [retrieval_row(store, rankings, int(query)) for query in picked]
        path, title = folder / f"retrieval_{name}.png", f"{name.capitalize()} queries"
        retrieval_sheet(path, title, rows)
        sheets[path] = queries(title, rows)
    return sheets


def pick_queries(pids: NDArray[np.int64], rankings: Rankings, config: ReportConfig) -> dict[str, NDArray[np.int64]]:
    """Choose the queries for each sheet, at most one per person; `pids` (Q,) are the people the queries describe."""
    order = np.lexsort((-rankings.similarities[:, 0], rankings.first_rank, -rankings.average_precision))
    shuffled = np.random.default_rng(config.seed).permutation(len(order))
    rows = {"best": order, "worst": order[::-1], "random": shuffled}
    return {name: one_per_person(pids, chosen)[: config.sheet_queries] for name, chosen in rows.items()}


def one_per_person(pids: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keep the first row of each person, in the order of `rows`."""
    _, first = np.unique(pids[rows], return_index=True)
    return rows[np.sort(first)]


def retrieval_row(store: PreparedStore, rankings: Rankings, query: int) -> RetrievalRow:
    """Collect a query, the image it was written for, and its best results."""
    caption_id, image_ids = rankings.caption_id[query], rankings.image_ids[query]
    own_image = store.caption_image_ids[caption_id]
    right = store.image_pids[image_ids] == store.image_pids[own_image]
    results = zip(store.pixels(image_ids), rankings.similarities[query].tolist(), right.tolist(), strict=True)
    truth = store.pixels(np.array([own_image]))[0]
    return RetrievalRow(store.captions[caption_id], truth, list(results), int(rankings.first_rank[query]))


def write_chapter(path: Path, chapter: Chapter, mlflow_run: str | None = None) -> None:
    """Write a page with one chapter: the report of a Kubeflow task; `mlflow_run` is the id of the model's run."""
    facts = {**chapter.facts, **({"MLflow run": mlflow_run} if mlflow_run else {})}
    write_page(path, f"{chapter.title}: {chapter.subject}", chapter.blocks(), facts)


def log(chapters: Sequence[Chapter], model_fingerprint: str, run_id: str | None, page: Path | None = None) -> None:
    """Log pictures and page to the MLflow run that trained the model; pictures go to the folder of their stage.

    It is the run `run_id`, or if that is unknown, the latest with these weights.
    """
    with open_run("report", run_id=run_id, model_fingerprint=model_fingerprint) as tracker:
        for chapter in chapters:
            for path in chapter.pictures:
                tracker.log_artifact(path, chapter.stage)
        if page:
            tracker.log_artifact(page)


if __name__ == "__main__":
    raise SystemExit(main("report", run, Inputs, Outputs))
