"""results.json: what evaluate found out about a model, in the file that all other stages read."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from irra.metrics import METRIC_NAMES
from irra.utils.records import check_files, read_record

RESULTS, METRICS, CMC = "results.json", "metrics.json", "cmc.csv"
RANKINGS = "rankings"  # the key of their hash, since they may have any name
EVALUATE_FIRST = "evaluate the model first (dvc repro evaluate)"
EVALUATE_AGAIN = "evaluate the model again (dvc repro --force --single-item evaluate)"


@dataclass(frozen=True)
class Results:
    """The contents of results.json.

    Attributes:
        model: The model, its training and the data it was evaluated on.
        metrics, intervals: By split, direction and name, in percent.
        sha256: Of the files written with it.
        with_captions: Text to image again, with captions at test time: `says` how; `metrics` and `intervals`.
        also: Text to image on other datasets: name, data, split, `metrics` and `intervals` of each.
    """

    model: dict[str, Any]
    metrics: dict[str, dict[str, dict[str, float]]]
    intervals: dict[str, dict[str, dict[str, tuple[float, float]]]]
    sha256: dict[str, str] = field(default_factory=dict)
    with_captions: dict[str, Any] | None = None
    also: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """A table of texts: what it is about, its header, and its rows."""

    title: str
    header: list[str]
    rows: list[list[str]]


def read_results(folder: Path) -> dict[str, Any]:
    """Read results.json from the report folder of evaluate, with the keys of `Results`.

    Raises:
        UserError: The file is missing, damaged or not the results of evaluate.
    """
    path = folder / RESULTS
    missing = f"{path}: missing; {EVALUATE_FIRST}"
    return asdict(read_record(path, Results, missing, EVALUATE_AGAIN, sealed_only=True))


def check_written_with(results: dict[str, Any], key: str, path: Path) -> None:
    """Check that `path` is the file that was written with these results under the name `key`.

    Raises:
        UserError: It is missing or another.
    """
    if key in results["sha256"]:
        check_files(path.parent, {path.name: results["sha256"][key]}, EVALUATE_AGAIN)


def further_tables(results: dict[str, Any]) -> list[Table]:
    """What was measured beside the dataset's own splits as they are; usually nothing."""
    tables = []
    if aided := results.get("with_captions"):
        measured = {split: results["metrics"][split]["t2i"] for split in aided["metrics"]}
        rows = [[f"{split}, without", *_cells(values)] for split, values in measured.items()]
        rows += [[f"{split}, with", *_cells(each["t2i"])] for split, each in aided["metrics"].items()]
        title = f"With captions at test time: {aided['says']}; text to image, %"
        tables.append(Table(title, ["", *METRIC_NAMES], rows))
    if others := results.get("also"):
        split = list(results["metrics"])[-1]
        rows = _tested(results["model"]["dataset"], split, results["metrics"][split])
        for other in others:
            name, dataset = other["name"], other["dataset"]
            name = name if name == dataset else f"{dataset} in {name}"  # as of a folder that is called prepared
            rows += _tested(name, other["split"], other["metrics"])
            if aided := other.get("with_captions"):
                rows += _tested(f"{name}, with captions", other["split"], aided["metrics"])
        title, trained = "Across datasets: test split, text to image, %", others[0]["trained_on"]
        tables.append(Table(title, ["trained on", "tested on", *METRIC_NAMES], [[trained, *row] for row in rows]))
    return tables


def as_text(table: Table) -> str:
    """A table as lines of aligned columns."""
    lines = [table.header, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]
    shown = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join([table.title, *(f"  {line}" for line in shown)])


def _cells(values: dict[str, float]) -> list[str]:
    return [f"{values[name]:.2f}" for name in METRIC_NAMES]


def _tested(name: str, split: str, metrics: dict[str, dict[str, float]]) -> list[list[str]]:
    """The row of a dataset; a split other than test is said."""
    return [[name if split == "test" else f"{name} ({split})", *_cells(metrics["t2i"])]]
