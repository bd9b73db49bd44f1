"""Compare trainings that differ in losses and seed: one table and one plot with mean and spread over seeds.

dvc exp show --json | python -m components.compare     # the last step of `make ablation`
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.ablation import NAME_PREFIX
from components.figures.ablation import ablation_chart
from components.figures.page import Cell, charts, note, table, write_page
from components.layout import EVALUATION, PARAMS
from components.results import read_results
from components.stage import guarded
from components.tracking.ablations import NAME, tags_of_comparison
from components.tracking.run import open_run
from irra.metrics import METRIC_NAMES
from irra.utils.errors import UserError
from irra.utils.files import write_json, write_text

UNFINISHED = ("queued", "running", "failed")
SPREAD = "In percent: the mean and, given several seeds, the standard deviation over them."
METRICS = str(EVALUATION / "metrics.json")


@dataclass(frozen=True)
class Result:
    """One training: its dataset, losses and seed, and its text-to-image metrics in percent on a split."""

    dataset: str
    loss_names: str
    seed: int
    split: str
    metrics: Mapping[str, float]


def run(folders: Sequence[Path], report: Path) -> None:
    """Compare the evaluations in `folders`, which are the outputs of Kubeflow's evaluate tasks."""
    compare([read_result(folder) for folder in folders], report)


def read_result(folder: Path) -> Result:
    """Read one result from a report folder of the evaluate stage."""
    results = read_results(folder)
    model, metrics = results["model"], results["metrics"]
    train, split = model["train"], compared_split(metrics)
    return Result(model["dataset"], train["loss_names"], train["seed"], split, metrics[split]["t2i"])


def compared_split(metrics: Mapping[str, Any]) -> str:
    """The split on which trainings are compared: test, or val if the data has no test split."""
    return "test" if "test" in metrics else "val"


def read_experiments(revisions: Sequence[Mapping[str, Any]]) -> tuple[list[Result], list[str]]:
    """Read the results from the output of `dvc exp show --json`.

    A name may occur several times: failed attempts, and the one that succeeded.

    Returns:
        The results, and the names of the study's experiments that have none.
    """
    experiments = [experiment for revision in revisions for experiment in revision.get("experiments") or []]
    named = [experiment for experiment in experiments if str(experiment["name"]).startswith(NAME_PREFIX)]
    results = {one["name"]: read_experiment(one["revs"][0]["data"]) for one in named if is_finished(one)}
    return list(results.values()), sorted({one["name"] for one in named} - results.keys())


def is_finished(experiment: Mapping[str, Any]) -> bool:
    """Whether an experiment has metrics of its own.

    DVC shows the metrics of the commit for an experiment that failed or never ran:
    https://github.com/treeverse/dvc/issues/9787
    """
    (revision, *_), executor = experiment["revs"], experiment.get("executor") or {}
    if revision.get("error") or executor.get("state", "success") in UNFINISHED or not revision["data"]:
        return False
    return "data" in revision["data"]["metrics"].get(METRICS, {})


def read_experiment(data: Mapping[str, Any]) -> Result:
    """Read the result of a finished experiment."""
    params, metrics = data["params"][str(PARAMS)]["data"], data["metrics"][METRICS]["data"]
    train, split = params["train"], compared_split(metrics)
    return Result(params["prepare"]["dataset_name"], train["loss_names"], train["seed"], split, metrics[split])


def compare(results: Sequence[Result], report: Path) -> None:
    """Write the comparison to the folder `report`, and log it to the trainings' parent in MLflow."""
    means = write_comparison(results, report)
    with open_run("compare", run_name=NAME, tags=tags_of_comparison()) as tracker:
        for losses, values in means.items():
            name = losses.replace("+", "-")  # MLflow does not allow plus signs
            tracker.log_metrics({f"{name}/{metric}": value["mean"] for metric, value in values.items()}, 0)
        tracker.log_folder(report, "ablation")


def write_comparison(results: Sequence[Result], report: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Write the table as Markdown, JSON and HTML, draw the plot, and return what is in the JSON: means by losses."""
    groups = by_losses(results)
    header, rows = ["losses", "seeds", *METRIC_NAMES], [table_row(*group) for group in groups.items()]
    write_text(report / "ablation.md", markdown(header, [list(map(in_one_line, row)) for row in rows]))
    scores = {losses: [result.metrics["R1"] for result in group] for losses, group in groups.items()}
    ablation_chart(report / "ablation.png", "R1", scores)
    datasets, splits = named(one.dataset for one in results), named(one.split for one in results)
    title = f"Losses compared on {datasets}: text to image, {splits}"
    write_page(report / "ablation.html", title, [table(header, rows), note(SPREAD), charts([report / "ablation.png"])])
    means = {losses: summary(group) for losses, group in groups.items()}
    write_json(report / "ablation.json", means)
    return means


def named(names: Iterable[str]) -> str:
    """The different names as a phrase."""
    return " and ".join(sorted(set(names)))


def by_losses(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Group the results by set of losses, fewest losses first; within a group they are ordered by seed."""
    groups: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: (result.loss_names.count("+"), result.loss_names, result.seed)):
        groups.setdefault(result.loss_names, []).append(result)
    return groups


def summary(group: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Mean of every metric and, given more than one seed, its sample standard deviation."""
    values = {name: [result.metrics[name] for result in group] for name in METRIC_NAMES}
    means = {name: {"mean": statistics.fmean(seeds)} for name, seeds in values.items()}
    if len(group) > 1:
        means = {name: mean | {"std": statistics.stdev(values[name])} for name, mean in means.items()}
    return means


def table_row(losses: str, group: Sequence[Result]) -> list[Cell]:
    """A row of the table: losses, number of seeds, and every metric's mean, with its standard deviation."""
    cells = [
        (f"{value['mean']:.1f}", f"± {value['std']:.1f}") if "std" in value else f"{value['mean']:.1f}"
        for value in summary(group).values()
    ]
    return [losses, str(len(group)), *cells]


def in_one_line(cell: Cell) -> str:
    """Join a number and its standard deviation by spaces at which a viewer cannot break the line."""
    return cell if isinstance(cell, str) else " ".join(cell).replace(" ", "\N{NO-BREAK SPACE}")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> None:
    """Compare the experiments read from standard input, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m components.compare", description=__doc__)
    parser.add_argument("--report", type=Path, default=Path("reports/ablation"), help="output (default: %(default)s)")
    report = parser.parse_args().report
    results, missing = read_experiments(json.load(sys.stdin))
    if not results:
        raise UserError(f"no finished experiment is named {NAME_PREFIX}*; run `make ablation`")
    compare(results, report)
    print((report / "ablation.md").read_text(encoding="utf-8"), end="")
    if missing:
        raise UserError(f"no result for {', '.join(missing)}; `make ablation` trains them again")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
