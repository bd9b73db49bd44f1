"""Draw the outputs of the other stages: pictures, and one self-contained page with all of them.

python -m components.report             # what `dvc repro report` runs
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.figures import RetrievalRow, cmc_curve, loss_curves, retrieval_sheet, validation_curves
from components.figures.dataset import draw_dataset_sheet
from components.figures.page import heading, metrics_table, picture, values_table, write_page
from components.layout import CURVES, EVALUATION, MODEL_RUN, PICTURES, PREPARED, RANKINGS
from components.results import CMC, EVALUATE_AGAIN, RESULTS, check_written_with, read_results
from components.results import RANKINGS as RANKINGS_KEY
from components.stage import main
from components.tracking.notes import noted_run
from components.tracking.run import open_run
from irra.config import ReportConfig
from irra.data.store import PreparedStore
from irra.metrics import METRIC_NAMES
from irra.utils.errors import UserError
from irra.utils.records import check_files

HISTORY, VALIDATION, PAGE = "history.csv", "validation.csv", "report.html"
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
    """The part of the report about one stage: its tables as HTML, and its pictures in reading order."""

    stage: str
    title: str
    tables: Sequence[str]
    pictures: Sequence[Path]

    def blocks(self) -> list[str]:
        """The chapter as blocks of HTML."""
        return [*self.tables, *map(picture, self.pictures)]


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
        draw_training(inputs.train, model, folder),
        draw_dataset(inputs.prepared, folder),
    ]
    blocks = [block for chapter in chapters for block in (heading(chapter.title), *chapter.blocks())]
    write_page(folder / PAGE, f"{model['train']['loss_names']} on {model['dataset']}", blocks)
    log(chapters, model["fingerprint"], noted_run(inputs.model_run, model["fingerprint"]), folder / PAGE)
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


def draw_dataset(prepared: Path, folder: Path) -> Chapter:
    """Draw some people of every split, and tabulate the sizes of the splits."""
    sheet = folder / "contact_sheet.png"
    store = PreparedStore.open(prepared)
    draw_dataset_sheet(store, sheet)
    counts = {
        **{split: vars(size) for split, size in store.stats.splits.items()},
        "skipped images": len(store.stats.skipped),
    }
    return Chapter("prepare", "Dataset", [values_table(counts)], [sheet])


def draw_training(curves: Path, model: Mapping[str, Any], folder: Path) -> Chapter:
    """Draw the tables in the folder `curves`; `model` is the training part of the model's config.json.

    Raises:
        UserError: A table is missing or damaged.
    """
    check_files(curves, model.get("curves", {}), TRAIN_AGAIN)
    history, validation = (read_columns(curves / name, TRAIN_AGAIN) for name in (HISTORY, VALIDATION))
    losses, validations = folder / "losses.png", folder / "validation.png"
    epochs = history.pop("epoch")
    loss_curves(losses, {name: (epochs, values) for name, values in history.items()})
    selected, split = model["selected"], model["train"]["select_on"]
    metrics = {name: validation[name] for name in METRIC_NAMES}
    validation_curves(validations, list(map(int, validation["epoch"])), metrics, selected["best_epoch"], split)
    return Chapter("train", "Training", [values_table(selected)], [validations, losses])


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
    table = metrics_table(results["metrics"], results["intervals"])
    return Chapter("evaluate", "Evaluation", [table], [folder / "cmc.png", *sheets])


def read_columns(path: Path, cure: str) -> dict[str, list[float]]:
    """Read a CSV table of numbers by column.

    Raises:
        UserError: It is damaged; `cure` says what to do.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in rows[0]}
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


def draw_sheets(store: PreparedStore, rankings: Rankings, config: ReportConfig, folder: Path) -> list[Path]:
    """Draw one picture each of the best, the worst and random queries with their results."""
    pids = store.image_pids[store.caption_image_ids[rankings.caption_id]]
    sheets = []
    for name, queries in pick_queries(pids, rankings, config).items():
        rows = [retrieval_row(store, rankings, int(query)) for query in queries]
        sheets.append(folder / f"retrieval_{name}.png")
        retrieval_sheet(sheets[-1], f"{name.capitalize()} queries", rows)
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


def write_chapter(path: Path, chapter: Chapter) -> None:
    """Write a page with one chapter: the report of a Kubeflow task."""
    write_page(path, chapter.title, chapter.blocks())


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
