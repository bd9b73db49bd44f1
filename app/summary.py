"""Show the results of the last evaluation: the table, the pictures, and how to open MLflow.

python -m app.summary            # the last step of `make repro`
"""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from components.figures.style import DIRECTIONS
from components.layout import EVALUATION, PICTURES
from components.results import Table as FurtherTable
from components.results import further_tables, read_results
from components.stage import guarded
from irra.metrics import METRIC_NAMES


def results_table(metrics: dict[str, Any], intervals: dict[str, Any]) -> Table:
    """Metrics in percent by split and direction, each above its 95% interval."""
    title = "Retrieval, % (95% interval over identities)"
    # fits into 80 columns, whatever the numbers
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("split")
    table.add_column("query → gallery")
    for name in METRIC_NAMES:
        table.add_column(name, justify="right")
    for split, directions in metrics.items():
        for direction, values in directions.items():
            bounds = intervals[split][direction]
            cells = [
                f"{values[name]:.2f}\n[dim]{bounds[name][0]:.1f}–{bounds[name][1]:.1f}[/dim]" for name in METRIC_NAMES
            ]
            table.add_row(split, DIRECTIONS[direction], *cells)
    return table


def rich_table(table: FurtherTable) -> Table:
    """A table of texts, with the numbers to the right."""
    shown = Table(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in table.header:
        shown.add_column(name, justify="right" if name in METRIC_NAMES else "left")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def show() -> None:
    """Print the summary of `reports/`."""
    results = read_results(EVALUATION)
    files = [*sorted(PICTURES.glob("*.png")), *PICTURES.glob("*.html")]
    console = Console()
    console.print(results_table(results["metrics"], results["intervals"]))
    for table in further_tables(results):
        console.print(rich_table(table))
    console.print("Pictures, and a page with all of them:", *files, sep="\n  ", highlight=False)
    console.print("Compare runs in a browser: make mlflow", highlight=False)


if __name__ == "__main__":
    raise SystemExit(guarded(show))
