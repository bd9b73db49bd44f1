"""results.json: what evaluate found out about a model, in the file that all other stages read."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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
    """

    model: dict[str, Any]
    metrics: dict[str, dict[str, dict[str, float]]]
    intervals: dict[str, dict[str, dict[str, tuple[float, float]]]]
    sha256: dict[str, str] = field(default_factory=dict)


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
